// SPDX-License-Identifier: Apache-2.0

/// Everything the engine asks of a file system, and nothing else.
///
/// The engine reaches the disk through this protocol alone, so a test can stand in for the disk:
/// keep, drop or tear what was not synced, fail the Nth call, run out of space. `PosixFileSystem`
/// is the real one.
///
/// Paths are absolute or relative to the process, `/` separated, taken as they are. Every method
/// may block; none is called on the cooperative pool or on an event loop.
public protocol FileSystem: Sendable {
  /// Opens a file.
  ///
  /// - Durability: a file that `.create` made is durable only after its directory was synced.
  func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any File

  /// Creates one directory; its parent must exist. It is durable after the parent was synced.
  func createDirectory(_ path: String) throws(SystemError)

  /// Names in a directory without `.` and `..`, sorted, so that no run depends on directory order.
  func list(_ directory: String) throws(SystemError) -> [String]

  /// What is at a path, or nil when nothing is. An error other than absence is thrown, never nil.
  func status(_ path: String) throws(SystemError) -> FileStatus?

  /// Bytes that can still be written to the file system that holds `path`, as far as it tells.
  func availableBytes(_ path: String) throws(SystemError) -> UInt64

  /// Renames atomically, replacing what stood at `target`. Durable after the directory was synced.
  func rename(_ source: String, to target: String) throws(SystemError)

  /// Removes a file's name. Durable after the directory was synced.
  func remove(_ path: String) throws(SystemError)

  /// Makes creations, renames and removals in a directory durable (L4).
  func syncDirectory(_ path: String) throws(SystemError)

  /// Creates the file if needed and takes an exclusive lock on it, for as long as the result lives.
  ///
  /// Excludes other processes and other holders in this process alike. The file is never removed.
  /// - Throws: a `SystemError` with `isLocked` when somebody else holds it.
  func lock(_ path: String) throws(SystemError) -> any FileLock
}

/// An open file. Positions and sizes are in bytes. Safe to use from several threads at once.
public protocol File: AnyObject, Sendable {
  /// Reads until `buffer` is full or the file ends, and returns how many bytes were read.
  func read(into buffer: inout MutableRawSpan, at offset: UInt64) throws(SystemError) -> Int

  /// Writes every byte, or throws; after an error any part of the range may have been written.
  func write(_ bytes: RawSpan, at offset: UInt64) throws(SystemError)

  /// As `write`, for bytes that `syncData` follows at once and nobody reads soon: where the system
  /// can, whole blocks of 4096 go to the device past its page cache.
  func writeThrough(_ bytes: RawSpan, at offset: UInt64) throws(SystemError)

  /// Makes written bytes, and the size needed to read them, durable (`fdatasync`).
  ///
  /// - Throws: after an error the kernel may have dropped the bytes and marked them clean. A second
  ///   call proves nothing (L2), so the caller must stop trusting this file.
  func syncData() throws(SystemError)

  /// As `syncData`, with all metadata (`fsync`).
  func sync() throws(SystemError)

  /// Cuts or extends the file with zeros. Durable after `sync`.
  func truncate(to size: UInt64) throws(SystemError)

  func size() throws(SystemError) -> UInt64

  /// Ends use of the file. Errors matter for written files: some file systems report here. Calling
  /// it again does nothing; a file that is dropped without it is closed without a report.
  func close() throws(SystemError)
}

extension File {
  /// `write`: a file that has no other way.
  public func writeThrough(_ bytes: RawSpan, at offset: UInt64) throws(SystemError) {
    try write(bytes, at: offset)
  }
}

/// A lock that is held until `release` or until the last reference is gone.
public protocol FileLock: AnyObject, Sendable {
  func release()
}

/// How a file is opened.
public enum OpenMode: Sendable, Hashable {
  case readOnly
  case readWrite
  /// Reading and writing a file that must not exist yet.
  case create
}

/// What a name stands for.
public struct FileStatus: Sendable, Hashable {
  /// In bytes.
  public var size: UInt64
  /// Whether it is a directory.
  public var isDirectory: Bool
  /// What an implementation answers with.
  public init(size: UInt64, isDirectory: Bool) {
    self.size = size
    self.isDirectory = isDirectory
  }
}
