// SPDX-License-Identifier: Apache-2.0
internal import CPenstock
internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#else
  internal import Darwin
#endif

/// The file system of the machine.
///
/// New files are readable and writable by their owner alone (0600), new directories likewise
/// (0700). Interrupted calls are repeated, except two: after an interrupted `close` the descriptor
/// is gone on Linux, and an interrupted sync is reported, because repeating a sync proves nothing
/// (L2).
public struct PosixFileSystem: FileSystem {
  /// All values are alike: the machine has one file system.
  public init() {}

  /// `open(2)`, with `O_CLOEXEC`. What is to be written is opened a second time with `O_DIRECT`,
  /// where the file system knows that.
  public func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any File {
    let flags =
      switch mode {
      case .readOnly: O_RDONLY
      case .readWrite: O_RDWR
      case .create: O_RDWR | O_CREAT | O_EXCL
      }
    let descriptor = try openDescriptor(path, flags)
    // unsafe: the path is passed for the call only.
    let direct = mode == .readOnly ? -1 : unsafe penstock_open_direct(path)
    return PosixFile(path: path, descriptor: descriptor, direct: direct)
  }

  /// `mkdir(2)`.
  public func createDirectory(_ path: String) throws(SystemError) {
    // unsafe: the path is passed for the call only.
    try check(repeating { unsafe mkdir(path, 0o700) }, "mkdir", path)
  }

  /// `opendir(3)` and `readdir(3)`.
  public func list(_ directory: String) throws(SystemError) -> [String] {
    // unsafe: the stream is used by this thread only and closed before leaving.
    guard let stream = unsafe opendir(directory) else { throw failure("opendir", directory) }
    defer { unsafe closedir(stream) }
    var names: [String] = []
    while true {
      errno = 0  // The only way to tell the end from an error.
      guard let entry = unsafe readdir(stream) else { break }
      let name = unsafe entryName(entry)
      if name != "." && name != ".." { names.append(name) }
    }
    if penstock_errno() != 0 { throw failure("readdir", directory) }
    return names.sorted()
  }

  /// `stat(2)`, which follows symbolic links.
  public func status(_ path: String) throws(SystemError) -> FileStatus? {
    var info = stat()
    // unsafe: the result is written to a local.
    guard repeating({ unsafe stat(path, &info) }) == 0 else {
      let error = failure("stat", path)
      if error.isNotFound { return nil }
      throw error
    }
    return FileStatus(size: UInt64(info.st_size), isDirectory: info.st_mode & S_IFMT == S_IFDIR)
  }

  /// `statvfs(3)`: what a process without privileges may use.
  public func availableBytes(_ path: String) throws(SystemError) -> UInt64 {
    var info = statvfs()
    // unsafe: the result is written to a local.
    try check(repeating { unsafe statvfs(path, &info) }, "statvfs", path)
    let (bytes, overflow) = UInt64(info.f_bavail).multipliedReportingOverflow(
      by: UInt64(info.f_frsize))
    return overflow ? .max : bytes
  }

  /// `rename(2)`.
  public func rename(_ source: String, to target: String) throws(SystemError) {
    try check(repeating { renamePath(source, target) }, "rename", source)
  }

  /// `unlink(2)`.
  public func remove(_ path: String) throws(SystemError) {
    // unsafe: the path is passed for the call only.
    try check(repeating { unsafe unlink(path) }, "unlink", path)
  }

  /// `fsync(2)` of the directory.
  public func syncDirectory(_ path: String) throws(SystemError) {
    let descriptor = try openDescriptor(path, O_RDONLY | O_DIRECTORY)
    var result = penstock_sync_all(descriptor)
    #if canImport(Darwin)
      // A file system that cannot flush the drive's cache for a directory still orders its
      // metadata.
      if result != 0 && [ENOTSUP, EINVAL].contains(penstock_errno()) { result = fsync(descriptor) }
    #else
      _ = result
    #endif
    let error = result == 0 ? nil : failure("fsync", path)
    result = closeDescriptor(descriptor)
    if let error { throw error }
    try check(result, "close", path)
  }

  /// An open-file-description lock (or `flock(2)` where there is none), and a list of the locks
  /// held in this process, by device and inode, so that two names of one file are one lock.
  public func lock(_ path: String) throws(SystemError) -> any FileLock {
    let descriptor = try openDescriptor(path, O_RDWR | O_CREAT)
    var info = stat()
    var error: SystemError?
    // unsafe: the result is written to a local.
    if unsafe fstat(descriptor, &info) != 0 {
      error = failure("fstat", path)
    } else {
      let identity = FileIdentity(
        device: UInt64(truncatingIfNeeded: info.st_dev), node: UInt64(info.st_ino))
      if !heldLocks.withLock({ $0.insert(identity).inserted }) {
        error = SystemError(call: "lock", path: path, errno: EAGAIN)
      } else if repeating({ penstock_lock_exclusive(descriptor) }) != 0 {
        error = failure("lock", path)
        _ = heldLocks.withLock { $0.remove(identity) }
      } else {
        return PosixLock(descriptor: descriptor, identity: identity)
      }
    }
    // The lock of another holder stays: it belongs to that holder's own open file description.
    _ = closeDescriptor(descriptor)
    throw error ?? failure("lock", path)
  }
}

/// An open descriptor.
///
/// Invariants
/// - I1: `users` counts the calls in progress; its top bit says that `close` was called.
/// - I2: the descriptor is closed once, when the top bit is set and no call is in progress, so no
///   call ever reaches a number that the system has given to another file.
private final class PosixFile: File {
  private let path: String
  private let descriptor: CInt
  /// The same file past the page cache; negative where the file system has no such way.
  private let direct: CInt
  private let users = Atomic<UInt>(0)

  private static let closed: UInt = 1 << (UInt.bitWidth - 1)
  /// Most bytes per call: Linux moves at most 2 GiB less a page, Darwin refuses more than 2 GiB.
  private static let transferLimit = 1 << 30

  init(path: String, descriptor: CInt, direct: CInt) {
    self.path = path
    self.descriptor = descriptor
    self.direct = direct
  }

  deinit {
    if users.load(ordering: .acquiring) & Self.closed == 0 { _ = closeAll() }
  }

  func read(into buffer: inout MutableRawSpan, at offset: UInt64) throws(SystemError) -> Int {
    try begin("pread", offset, buffer.byteCount)
    defer { end() }
    // unsafe: each range given to the call lies inside the span's own bytes.
    return try unsafe buffer.withUnsafeMutableBytes { (bytes) throws(SystemError) -> Int in
      var done = 0
      while done < bytes.count {
        let count = min(bytes.count - done, Self.transferLimit)
        let position = off_t(offset) + off_t(done)
        let part = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[done..<done + count])
        let result = repeating { unsafe pread(descriptor, part.baseAddress, count, position) }
        if result < 0 { throw failure("pread", path) }
        if result == 0 { break }
        done += result
      }
      return done
    }
  }

  func write(_ bytes: RawSpan, at offset: UInt64) throws(SystemError) {
    try write(bytes, at: offset, through: -1)
  }

  func writeThrough(_ bytes: RawSpan, at offset: UInt64) throws(SystemError) {
    try write(bytes, at: offset, through: direct)
  }

  private func write(
    _ bytes: RawSpan, at offset: UInt64, through direct: CInt
  ) throws(SystemError) {
    try begin("pwrite", offset, bytes.byteCount)
    defer { end() }
    // unsafe: each range given to the call lies inside the span's own bytes.
    try unsafe bytes.withUnsafeBytes { (bytes) throws(SystemError) in
      var done = 0
      while done < bytes.count {
        let count = min(bytes.count - done, Self.transferLimit)
        let position = off_t(offset) + off_t(done)
        let part = unsafe UnsafeRawBufferPointer(rebasing: bytes[done..<done + count])
        let edges = Int(bitPattern: part.baseAddress) | count | Int(position)
        var result = -1
        let isDirect = direct >= 0 && edges.isMultiple(of: CommitBuffer.alignment)
        if isDirect {
          result = repeating { unsafe pwrite(direct, part.baseAddress, count, position) }
        }
        // A device with larger blocks refuses what is whole blocks here.
        if !isDirect || result < 0 && penstock_errno() == EINVAL {
          result = repeating { unsafe pwrite(descriptor, part.baseAddress, count, position) }
        }
        if result < 0 { throw failure("pwrite", path) }
        // No progress and no reason: repeating could go on for ever.
        if result == 0 { throw SystemError(call: "pwrite", path: path, errno: EIO) }
        done += result
      }
    }
  }

  func syncData() throws(SystemError) {
    try begin("fdatasync")
    defer { end() }
    try check(penstock_sync_data(descriptor), "fdatasync", path)
  }

  func sync() throws(SystemError) {
    try begin("fsync")
    defer { end() }
    try check(penstock_sync_all(descriptor), "fsync", path)
  }

  func truncate(to size: UInt64) throws(SystemError) {
    try begin("ftruncate", size)
    defer { end() }
    try check(repeating { ftruncate(descriptor, off_t(size)) }, "ftruncate", path)
  }

  func size() throws(SystemError) -> UInt64 {
    try begin("fstat")
    defer { end() }
    var info = stat()
    // unsafe: the result is written to a local.
    try check(unsafe fstat(descriptor, &info), "fstat", path)
    return UInt64(info.st_size)
  }

  /// Later calls throw `EBADF`. When calls are in progress, the last of them closes the descriptor
  /// and an error of that close is lost: let them end first where the report matters.
  func close() throws(SystemError) {
    let before = users.bitwiseOr(Self.closed, ordering: .acquiringAndReleasing).oldValue
    if before == 0 { try check(closeAll(), "close", path) }
  }

  /// Enters a call, or throws: `EBADF` after `close`, `EFBIG` for a range no file can have.
  private func begin(_ call: String, _ offset: UInt64 = 0, _ count: Int = 0) throws(SystemError) {
    if offset > UInt64(off_t.max) - UInt64(count) {
      throw SystemError(call: call, path: path, errno: EFBIG)
    }
    var seen = users.load(ordering: .relaxed)
    while true {
      if seen & Self.closed != 0 { throw SystemError(call: call, path: path, errno: EBADF) }
      let result = users.weakCompareExchange(
        expected: seen, desired: seen + 1, ordering: .acquiring)
      if result.exchanged { return }
      seen = result.original
    }
  }

  private func end() {
    let after = users.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue
    if after == Self.closed { _ = closeAll() }
  }

  private func closeAll() -> CInt {
    if direct >= 0 { _ = closeDescriptor(direct) }
    return closeDescriptor(descriptor)
  }
}

private struct FileIdentity: Hashable {
  var device: UInt64
  var node: UInt64
}

/// The locks this process holds, since a file lock may not exclude its own process.
private let heldLocks = Mutex<Set<FileIdentity>>([])

private final class PosixLock: FileLock {
  private let descriptor: CInt
  private let identity: FileIdentity
  private let released = Atomic<Bool>(false)

  init(descriptor: CInt, identity: FileIdentity) {
    self.descriptor = descriptor
    self.identity = identity
  }

  deinit { release() }

  func release() {
    if released.exchange(true, ordering: .acquiringAndReleasing) { return }
    _ = closeDescriptor(descriptor)
    _ = heldLocks.withLock { $0.remove(identity) }
  }
}

private func failure(_ call: String, _ path: String) -> SystemError {
  SystemError(call: call, path: path, errno: penstock_errno())
}

private func check(_ result: CInt, _ call: String, _ path: String) throws(SystemError) {
  if result != 0 { throw failure(call, path) }
}

/// Repeats a call for as long as a signal interrupts it.
private func repeating<Result: SignedInteger>(_ call: () -> Result) -> Result {
  while true {
    let result = call()
    if result != -1 || penstock_errno() != EINTR { return result }
  }
}

private func openDescriptor(_ path: String, _ flags: CInt) throws(SystemError) -> CInt {
  // unsafe: the path is passed for the call only.
  let descriptor = repeating { unsafe penstock_open(path, flags | O_CLOEXEC, 0o600) }
  if descriptor < 0 { throw failure("open", path) }
  return descriptor
}

/// Closes once: whatever the result, the descriptor is gone, so an interruption is no error.
private func closeDescriptor(_ descriptor: CInt) -> CInt {
  let result = close(descriptor)
  return result != 0 && penstock_errno() == EINTR ? 0 : result
}

private func renamePath(_ source: String, _ target: String) -> CInt {
  // unsafe: the paths are passed for the call only.
  unsafe rename(source, target)
}

/// The name in a directory entry.
@unsafe private func entryName(_ entry: UnsafeMutablePointer<dirent>) -> String {
  // The entry may end with its name, before the end of the declared array, so it is not copied.
  let offset = MemoryLayout<dirent>.offset(of: \.d_name) ?? 0
  return unsafe String(
    cString: (UnsafeRawPointer(entry) + offset).assumingMemoryBound(to: CChar.self))
}
