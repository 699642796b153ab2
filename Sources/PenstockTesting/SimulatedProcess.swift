// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem
internal import Synchronization

/// A simulated disk as one process sees it: calls that change something can be watched, left out,
/// or made the process's last.
///
/// ```swift
/// let process = SimulatedProcess(disk) { process, call in
///   if call.kind == .rename { process.end() }
///   return .asAsked
/// }
/// ```
public final class SimulatedProcess: FileSystem {
  /// What becomes of a call.
  public enum Handling: Sendable, Hashable {
    /// It is done.
    case asAsked
    /// It succeeds without being done, as if the program had left it out.
    case leftOut
    /// It is done, and reports success even if it failed.
    case ignoringErrors
  }

  /// Decides about a call before it is made, and may let time pass on a `SimulatedClock`, as a slow
  /// disk does. It is asked about writes, syncs, truncations, renames, removals, creations (which
  /// cannot be left out) and locks, not about reads.
  public typealias Watch = @Sendable (SimulatedProcess, Call) -> Handling

  /// The disk behind it.
  public let disk: SimulatedFileSystem
  private let watch: Watch
  private let hasEnded = Atomic<Bool>(false)
  /// What files are called now that were opened under another name.
  private let names = Mutex<[String: String]>([:])

  /// A process on `disk` that asks `watch` about every call.
  public init(_ disk: SimulatedFileSystem, watch: @escaping Watch = { _, _ in .asAsked }) {
    self.disk = disk
    self.watch = watch
  }

  /// Ends the process: the present call, if `watch` decides about one, and all later ones fail with
  /// `EIO`. Call `kill` or `crash` of the disk to free its locks.
  public func end() { hasEnded.store(true, ordering: .relaxed) }

  private func checkAlive(_ call: Call) throws(SystemError) {
    guard hasEnded.load(ordering: .relaxed) else { return }
    throw SystemError(call: call.kind.rawValue, path: call.path, errno: 5)
  }

  fileprivate func look<Result>(
    _ kind: CallKind, _ path: String, _ body: () throws(SystemError) -> Result
  ) throws(SystemError) -> Result {
    try checkAlive(Call(kind: kind, path: path))
    return try body()
  }

  fileprivate func change(
    _ call: Call, _ body: () throws(SystemError) -> Void
  ) throws(SystemError) {
    try checkAlive(call)
    let handling = watch(self, call)
    try checkAlive(call)
    switch handling {
    case .asAsked: try body()
    case .leftOut: break
    case .ignoringErrors: do throws(SystemError) { try body() } catch {}
    }
  }

  public func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any File {
    let call = Call(kind: .open, path: path)
    if mode == .create { try change(call) {} }
    return ProcessFile(
      self, path,
      try look(.open, path) { () throws(SystemError) in
        try disk.open(path, mode)
      })
  }

  public func createDirectory(_ path: String) throws(SystemError) {
    try change(Call(kind: .createDirectory, path: path)) { () throws(SystemError) in
      try disk.createDirectory(path)
    }
  }

  public func list(_ directory: String) throws(SystemError) -> [String] {
    try look(.list, directory) { () throws(SystemError) in try disk.list(directory) }
  }

  public func status(_ path: String) throws(SystemError) -> FileStatus? {
    try look(.status, path) { () throws(SystemError) in try disk.status(path) }
  }

  public func availableBytes(_ path: String) throws(SystemError) -> UInt64 {
    try look(.status, path) { () throws(SystemError) in try disk.availableBytes(path) }
  }

  public func rename(_ source: String, to target: String) throws(SystemError) {
    try change(Call(kind: .rename, path: source)) { () throws(SystemError) in
      try disk.rename(source, to: target)
      names.withLock { names in
        let opened = names.first { $0.value == source }?.key ?? source
        names[opened] = target
      }
    }
  }

  /// The present name of a file by the one under which it was opened.
  fileprivate func name(of path: String) -> String { names.withLock { $0[path] ?? path } }

  public func remove(_ path: String) throws(SystemError) {
    try change(Call(kind: .remove, path: path)) { () throws(SystemError) in
      try disk.remove(path)
    }
  }

  public func syncDirectory(_ path: String) throws(SystemError) {
    try change(Call(kind: .syncDirectory, path: path)) { () throws(SystemError) in
      try disk.syncDirectory(path)
    }
  }

  public func lock(_ path: String) throws(SystemError) -> any FileLock {
    try change(Call(kind: .lock, path: path)) {}
    return try look(.lock, path) { () throws(SystemError) in try disk.lock(path) }
  }
}

private final class ProcessFile: File {
  private let process: SimulatedProcess
  private let path: String
  private let file: any File

  init(_ process: SimulatedProcess, _ path: String, _ file: any File) {
    self.process = process
    self.path = path
    self.file = file
  }

  func read(into buffer: inout MutableRawSpan, at offset: UInt64) throws(SystemError) -> Int {
    try file.read(into: &buffer, at: offset)
  }

  func write(_ bytes: RawSpan, at offset: UInt64) throws(SystemError) {
    // unsafe: the pointer is used during the call only; a closure cannot capture a span.
    let copy = unsafe bytes.withUnsafeBytes { unsafe Array($0) }
    let call = Call(kind: .write, path: process.name(of: path), offset: offset, length: copy.count)
    try process.change(call) { () throws(SystemError) in
      try copy.withRaw { (raw) throws(SystemError) in try file.write(raw, at: offset) }
    }
  }

  func syncData() throws(SystemError) {
    try process.change(Call(kind: .syncData, path: process.name(of: path))) {
      () throws(SystemError) in
      try file.syncData()
    }
  }

  func sync() throws(SystemError) {
    try process.change(Call(kind: .sync, path: process.name(of: path))) { () throws(SystemError) in
      try file.sync()
    }
  }

  func truncate(to size: UInt64) throws(SystemError) {
    try process.change(Call(kind: .truncate, path: process.name(of: path), offset: size)) {
      () throws(SystemError) in try file.truncate(to: size)
    }
  }

  func size() throws(SystemError) -> UInt64 { try file.size() }

  func close() throws(SystemError) { try file.close() }
}
