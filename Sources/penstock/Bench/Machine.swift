// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockSystem

/// What the figures were measured on.
enum Machine {
  static var description: String {
    var model = "unknown processor"
    if let text = read("/proc/cpuinfo") {
      let lines = text.split(separator: "\n")
      if let line = lines.first(where: { $0.hasPrefix("model name") }),
        let colon = line.firstIndex(of: ":")
      {
        model = String(line[line.index(after: colon)...].drop { $0 == " " })
      }
      let count = lines.count { $0.hasPrefix("processor") }
      model += ", \(count) processors"
    }
    if let version = read("/proc/sys/kernel/osrelease") {
      model += ", Linux " + version.filter { $0 != "\n" }
    }
    return model
  }

  /// The file system that holds a directory, and the device it is on.
  struct FileSystem: Encodable, CustomStringConvertible {
    var type = "unknown"
    var device = "unknown"
    var mount = "unknown"

    var description: String {
      let warning = type == "tmpfs" || type == "ramfs" ? "; memory: nothing is durable there" : ""
      return "\(type) on \(device), mounted at \(mount)\(warning)"
    }
  }

  static func fileSystem(of directory: String) -> FileSystem {
    let path = URL(fileURLWithPath: directory).resolvingSymlinksInPath().path
    var best = FileSystem()
    for line in (read("/proc/self/mounts") ?? "").split(separator: "\n") {
      // Device, mount point with blanks as \040, type.
      let parts = line.split(separator: " ")
      guard parts.count >= 3 else { continue }
      let mount = parts[1].replacingOccurrences(of: "\\040", with: " ")
      guard path == mount || mount == "/" || path.hasPrefix(mount + "/"),
        // The last of equal ones lies on top.
        best.mount == "unknown" || mount.count >= best.mount.count
      else { continue }
      best = FileSystem(type: String(parts[2]), device: String(parts[0]), mount: mount)
    }
    return best
  }

  private static func read(_ path: String) -> String? {
    do {
      let file = try PosixFileSystem().open(path, .readOnly)
      var bytes = [UInt8](repeating: 0, count: 64 << 10)
      let count = try bytes.withMutableRaw { raw throws(SystemError) in
        try file.read(into: &raw, at: 0)
      }
      try file.close()
      return String(decoding: bytes[..<count], as: UTF8.self)
    } catch { return nil }
  }
}
