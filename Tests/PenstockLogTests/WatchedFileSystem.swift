// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import PenstockTesting

/// Passes every call on and tells a test before each that changes something, so that it can look at
/// the disk between calls, and before each read.
///
/// For one thread, which is why it may hold a closure that is not `Sendable`.
final class WatchedFileSystem: FileSystem, @unchecked Sendable {
  private let disk: SimulatedFileSystem
  fileprivate let beforeRead: () -> Void
  private let beforeCall: () -> Void

  init(
    _ disk: SimulatedFileSystem, beforeCall: @escaping () -> Void = {},
    beforeRead: @escaping () -> Void = {}
  ) {
    self.disk = disk
    self.beforeRead = beforeRead
    self.beforeCall = beforeCall
  }

  fileprivate func watch() { beforeCall() }

  func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any File {
    watch()
    return WatchedFile(self, try disk.open(path, mode))
  }

  func createDirectory(_ path: String) throws(SystemError) {
    watch()
    try disk.createDirectory(path)
  }

  func list(_ directory: String) throws(SystemError) -> [String] { try disk.list(directory) }

  func status(_ path: String) throws(SystemError) -> FileStatus? { try disk.status(path) }
  func availableBytes(_ path: String) throws(SystemError) -> UInt64 {
    try disk.availableBytes(path)
  }

  func rename(_ source: String, to target: String) throws(SystemError) {
    watch()
    try disk.rename(source, to: target)
  }

  func remove(_ path: String) throws(SystemError) {
    watch()
    try disk.remove(path)
  }

  func syncDirectory(_ path: String) throws(SystemError) {
    watch()
    try disk.syncDirectory(path)
  }

  func lock(_ path: String) throws(SystemError) -> any FileLock {
    watch()
    return try disk.lock(path)
  }
}

private final class WatchedFile: File {
  private let fileSystem: WatchedFileSystem
  private let file: any File

  init(_ fileSystem: WatchedFileSystem, _ file: any File) {
    self.fileSystem = fileSystem
    self.file = file
  }

  func read(into buffer: inout MutableRawSpan, at offset: UInt64) throws(SystemError) -> Int {
    fileSystem.beforeRead()
    return try file.read(into: &buffer, at: offset)
  }

  func write(_ bytes: RawSpan, at offset: UInt64) throws(SystemError) {
    fileSystem.watch()
    try file.write(bytes, at: offset)
  }

  func syncData() throws(SystemError) {
    fileSystem.watch()
    try file.syncData()
  }

  func sync() throws(SystemError) {
    fileSystem.watch()
    try file.sync()
  }

  func truncate(to size: UInt64) throws(SystemError) {
    fileSystem.watch()
    try file.truncate(to: size)
  }

  func size() throws(SystemError) -> UInt64 { try file.size() }

  func close() throws(SystemError) { try file.close() }
}
