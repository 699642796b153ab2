// SPDX-License-Identifier: Apache-2.0
import Foundation

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A small ext4 file system in a file, mounted through a loop device.
///
/// The file holds what has reached the *device*. Pages that the mounted file system has not
/// written back are not in it, so a copy of the file is what a loss of power leaves.
final class DiskImage {
  let image: String
  let mountPoint: String
  private(set) var isMounted = false

  /// Names for one that does not exist yet.
  private init(image: String, mountPoint: String) {
    self.image = image
    self.mountPoint = mountPoint
  }

  /// Makes an empty file system and mounts it.
  static func make(
    _ name: String, in directory: String, megabytes: Int
  ) throws(CrashtestError) -> DiskImage {
    let disk = DiskImage(
      image: "\(directory)/\(name).ext4", mountPoint: "\(directory)/\(name)")
    try disk.createFile(bytes: megabytes << 20)
    // Nothing may be left to do in the background: a copy waits for a quiet device.
    try ChildProcess.run([
      "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0",
      disk.image,
    ])
    try disk.mount()
    return disk
  }

  private func createFile(bytes: Int) throws(CrashtestError) {
    let descriptor = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw CrashtestError("cannot create \(image): errno \(errno)") }
    defer { _ = close(descriptor) }
    guard ftruncate(descriptor, off_t(bytes)) == 0 else {
      throw CrashtestError("cannot size \(image): errno \(errno)")
    }
  }

  private func mount() throws(CrashtestError) {
    guard mkdir(mountPoint, 0o700) == 0 || errno == EEXIST else {
      throw CrashtestError("cannot create \(mountPoint): errno \(errno)")
    }
    try ChildProcess.run(["mount", "-o", "loop", image, mountPoint])
    isMounted = true
  }

  /// Unmounts; afterwards nothing holds the image but its name.
  func unmount() throws(CrashtestError) {
    guard isMounted else { return }
    var problem = CrashtestError("umount \(mountPoint)")
    // A process that was just killed may hold it for a moment.
    let done = poll(seconds: 10, every: 0.1) {
      do throws(CrashtestError) {
        try ChildProcess.run(["umount", mountPoint])
        return true
      } catch {
        problem = error
        return false
      }
    }
    if !done {
      try ChildProcess.run(["umount", "-l", mountPoint])
      isMounted = false
      throw problem
    }
    isMounted = false
  }

  /// Unmounts and removes everything.
  func discard() throws(CrashtestError) {
    try unmount()
    unlink(image)
    rmdir(mountPoint)
  }

  /// The disk that a loss of power now would leave, mounted.
  ///
  /// The caller has stopped every process that writes. The kernel may still write on its own, so
  /// the device's counters must be the same before and after the copy; otherwise it is taken anew.
  func copyAfterPowerLoss(_ name: String, in directory: String) throws(CrashtestError) -> DiskImage
  {
    let copy = DiskImage(image: "\(directory)/\(name).ext4", mountPoint: "\(directory)/\(name)")
    var isStill = false
    for _ in 0..<20 where !isStill {
      let before = try writes()
      guard !before.isEmpty else { throw CrashtestError("\(mountPoint) has no device counters") }
      try ChildProcess.run(["cp", "--sparse=always", image, copy.image])
      isStill = try before == writes()
    }
    guard isStill else { throw CrashtestError("the device of \(mountPoint) never comes to rest") }
    try copy.mount()
    return copy
  }

  /// Writes that the loop device has finished and has under way.
  private func writes() throws(CrashtestError) -> [Substring] {
    guard let device = Mount.holding(mountPoint)?.source.split(separator: "/").last else {
      return []
    }
    var last: [Substring] = []
    // Under way is field 9; writes, their sectors, discards and flushes are counted around it.
    poll(seconds: 10) {
      let data = FileManager.default.contents(atPath: "/sys/block/\(device)/stat") ?? Data()
      let fields = String(decoding: data, as: UTF8.self).split { $0.isWhitespace }
      guard fields.count >= 11 else { return true }
      last = [4, 6].map { fields[$0] } + fields.dropFirst(11).prefix(3)
      return fields[8] == "0"
    }
    return last
  }

  /// Nil if such disks can be made here, else why not.
  static func obstacle(in directory: String) -> String? {
    #if os(Linux)
      guard geteuid() == 0 else { return "it needs root, to mount a file system" }
      do throws(CrashtestError) {
        try make("trial", in: directory, megabytes: 16).discard()
        return nil
      } catch {
        return "no file system can be mounted here: \(error)"
      }
    #else
      return "it needs Linux"
    #endif
  }
}

/// A mounted file system, as Linux lists them.
struct Mount {
  var source: String
  var kind: String

  /// The file system that holds a path.
  static func holding(_ path: String) -> Mount? {
    guard let data = FileManager.default.contents(atPath: "/proc/self/mounts") else { return nil }
    let full = URL(fileURLWithPath: path).standardizedFileURL.resolvingSymlinksInPath().path
    var best: (length: Int, mount: Mount)?
    for line in String(decoding: data, as: UTF8.self).split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard fields.count > 2 else { continue }
      let place = fields[1].replacingOccurrences(of: "\\040", with: " ")
      let isInside = full == place || full.hasPrefix(place == "/" ? "/" : place + "/")
      // The last mount at a place covers the others.
      if isInside, place.count >= best?.length ?? 0 {
        best = (place.count, Mount(source: String(fields[0]), kind: String(fields[2])))
      }
    }
    return best?.mount
  }
}
