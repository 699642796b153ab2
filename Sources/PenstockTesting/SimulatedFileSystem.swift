// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem
internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#else
  internal import Darwin
#endif

/// A disk in memory that loses power, fails and fills up when told to.
///
/// Reads see every change at once. A change is *pending* until the call that makes it durable:
/// `syncData` or `sync` for bytes and size of a file, `syncDirectory` for the names in a directory.
/// A crash decides about each pending change: `crash(choosing:garbling:)`.
///
/// Paths start at the root, with or without a leading `/`; `..` is refused with `EINVAL`. A rename
/// into another directory is refused with `EXDEV`, as between two file systems. A removed file can
/// be used through open handles, but no longer counts against the capacity.
///
/// Calls of several threads run one after another. Nothing depends on time, hash order or
/// addresses: the same calls give the same results.
public final class SimulatedFileSystem: FileSystem {
  let state: Mutex<SimulatedState>

  /// An empty disk.
  ///
  /// - Parameters:
  ///   - sectorSize: the bytes that a crash keeps or drops together; aligned to their own size.
  ///   - traceLimit: how many calls `trace` remembers.
  public init(sectorSize: Int = 4096, traceLimit: Int = 4096) {
    precondition(sectorSize > 0 && traceLimit > 0, "both limits are above zero")
    state = Mutex(SimulatedState(sectorSize: sectorSize, traceLimit: traceLimit))
  }

  init(_ state: SimulatedState) { self.state = Mutex(state) }

  private func perform<Result: Sendable>(
    _ kind: CallKind, _ path: String,
    instead: (inout SimulatedState, Fault.Effect) -> Void = { _, _ in },
    _ body: (inout SimulatedState) throws(Failure) -> Result
  ) throws(SystemError) -> Result {
    try state.withLock { (state) throws(SystemError) -> Result in
      try state.perform(Call(kind: kind, path: path), instead: instead, body)
    }
  }

  public func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any File {
    let (node, generation) = try perform(.open, path) { (state) throws(Failure) in
      if mode == .create {
        return (try state.create(path, isDirectory: false), state.generation)
      }
      let node = try state.find(path)
      if state.directories[node] != nil { throw Failure(EISDIR) }
      return (node, state.generation)
    }
    return SimulatedFile(
      self, node: node, generation: generation, path: path, isWritable: mode != .readOnly)
  }

  public func createDirectory(_ path: String) throws(SystemError) {
    try perform(.createDirectory, path) { (state) throws(Failure) in
      _ = try state.create(path, isDirectory: true)
    }
  }

  public func list(_ directory: String) throws(SystemError) -> [String] {
    try perform(.list, directory) { (state) throws(Failure) in
      guard let found = state.directories[try state.find(directory)] else {
        throw Failure(ENOTDIR)
      }
      return found.entries.keys.sorted()
    }
  }

  public func status(_ path: String) throws(SystemError) -> FileStatus? {
    try perform(.status, path) { (state) throws(Failure) in
      do throws(Failure) {
        let file = state.files[try state.find(path)]
        return FileStatus(size: UInt64(file?.current.count ?? 0), isDirectory: file == nil)
      } catch {
        if error.errno == ENOENT { return nil }
        throw error
      }
    }
  }

  public func availableBytes(_ path: String) throws(SystemError) -> UInt64 {
    try perform(.status, path) { (state) throws(Failure) in
      guard let capacity = state.capacity else { return .max }
      return capacity > state.used ? capacity - state.used : 0
    }
  }

  public func rename(_ source: String, to target: String) throws(SystemError) {
    try perform(.rename, source) { (state) throws(Failure) in
      try state.rename(source, to: target)
    }
  }

  public func remove(_ path: String) throws(SystemError) {
    try perform(.remove, path) { (state) throws(Failure) in try state.remove(path) }
  }

  public func syncDirectory(_ path: String) throws(SystemError) {
    let drop = { (state: inout SimulatedState, effect: Fault.Effect) in
      if effect == .dropsPending, let node = try? state.find(path) {
        state.directories[node]?.dropPending()
      }
    }
    try perform(.syncDirectory, path, instead: drop) { (state) throws(Failure) in
      let node = try state.find(path)
      if state.directories[node] == nil { throw Failure(ENOTDIR) }
      state.directories[node]?.sync()
    }
  }

  public func lock(_ path: String) throws(SystemError) -> any FileLock {
    let (node, generation) = try perform(.lock, path) { (state) throws(Failure) in
      var node: Int
      do throws(Failure) {
        node = try state.find(path)
      } catch {
        if error.errno != ENOENT { throw error }
        node = try state.create(path, isDirectory: false)
      }
      if state.directories[node] != nil { throw Failure(EISDIR) }
      if !state.locked.insert(node).inserted { throw Failure(EAGAIN) }
      return (node, state.generation)
    }
    return SimulatedLock(self, node: node, generation: generation)
  }
}

/// An open file of a simulated file system.
private final class SimulatedFile: File {
  private let fileSystem: SimulatedFileSystem
  private let node: Int
  private let generation: Int
  private let path: String
  private let isWritable: Bool
  private let isClosed = Atomic<Bool>(false)

  init(
    _ fileSystem: SimulatedFileSystem, node: Int, generation: Int, path: String, isWritable: Bool
  ) {
    self.fileSystem = fileSystem
    self.node = node
    self.generation = generation
    self.path = path
    self.isWritable = isWritable
  }

  /// Runs a call, unless the file was closed (`EBADF`) or its process has ended (`EIO`).
  private func perform<Result: Sendable>(
    _ kind: CallKind, offset: UInt64 = 0, length: Int = 0,
    instead: (inout SimulatedState, Fault.Effect) -> Void = { _, _ in },
    _ body: (inout SimulatedState) throws(Failure) -> Result
  ) throws(SystemError) -> Result {
    try fileSystem.state.withLock { (state) throws(SystemError) -> Result in
      if isClosed.load(ordering: .relaxed) {
        throw SystemError(call: kind.rawValue, path: path, errno: EBADF)
      }
      if state.generation != generation {
        throw SystemError(call: kind.rawValue, path: path, errno: EIO)
      }
      let call = Call(kind: kind, path: path, offset: offset, length: length)
      return try state.perform(call, instead: instead, body)
    }
  }

  func read(into buffer: inout MutableRawSpan, at offset: UInt64) throws(SystemError) -> Int {
    let length = buffer.byteCount
    let bytes = try perform(.read, offset: offset, length: length) { (state) throws(Failure) in
      guard let file = state.files[node], let start = Int(exactly: offset) else {
        throw Failure(EFBIG)
      }
      if start >= file.current.count || length == 0 { return ArraySlice<UInt8>() }
      let end = min(file.current.count, start + min(length, Int.max - start))
      if file.unreadable.contains(where: { $0.overlaps(offset..<UInt64(end)) }) {
        throw Failure(EIO)
      }
      return file.current[start..<end]
    }
    // unsafe: the pointer is used during the call only, and the source is not longer than it.
    unsafe buffer.withUnsafeMutableBytes { unsafe $0.copyBytes(from: bytes) }
    return bytes.count
  }

  func write(_ bytes: RawSpan, at offset: UInt64) throws(SystemError) {
    // unsafe: the pointer is used during the call only.
    let bytes = unsafe bytes.withUnsafeBytes { unsafe Array($0) }
    let part = { [node] (state: inout SimulatedState, effect: Fault.Effect) in
      guard case .partial(let count) = effect else { return }
      // The fault's own error is reported, whatever comes of the part.
      _ = try? state.write(Array(bytes.prefix(count)), to: node, at: offset)
    }
    try perform(.write, offset: offset, length: bytes.count, instead: part) {
      (state) throws(Failure) in
      if !isWritable { throw Failure(EBADF) }
      try state.write(bytes, to: node, at: offset)
    }
  }

  func syncData() throws(SystemError) { try sync(.syncData) }

  func sync() throws(SystemError) { try sync(.sync) }

  private func sync(_ kind: CallKind) throws(SystemError) {
    let drop = { [node] (state: inout SimulatedState, effect: Fault.Effect) in
      if effect == .dropsPending { state.files[node]?.dropPending() }
    }
    try perform(kind, instead: drop) { state in
      state.files[node]?.sync(sectorSize: state.sectorSize)
    }
  }

  func truncate(to size: UInt64) throws(SystemError) {
    try perform(.truncate, offset: size) { (state) throws(Failure) in
      if !isWritable { throw Failure(EINVAL) }
      let reachable = try state.reachable(node, size)
      if reachable < size { throw Failure(ENOSPC) }
      state.files[node]?.resize(to: reachable, sectorSize: state.sectorSize)
    }
  }

  func size() throws(SystemError) -> UInt64 {
    try perform(.size) { state in UInt64(state.files[node]?.current.count ?? 0) }
  }

  func close() throws(SystemError) {
    if isClosed.load(ordering: .relaxed) { return }
    defer { isClosed.store(true, ordering: .relaxed) }
    try perform(.close) { _ in }
  }
}

private final class SimulatedLock: FileLock {
  private let fileSystem: SimulatedFileSystem
  private let node: Int
  private let generation: Int
  private let isReleased = Atomic<Bool>(false)

  init(_ fileSystem: SimulatedFileSystem, node: Int, generation: Int) {
    self.fileSystem = fileSystem
    self.node = node
    self.generation = generation
  }

  deinit { release() }

  func release() {
    if isReleased.exchange(true, ordering: .relaxed) { return }
    fileSystem.state.withLock { state in
      if state.generation == generation { state.locked.remove(node) }
    }
  }
}
