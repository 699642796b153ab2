// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import PenstockTesting
import Synchronization

/// Holds calls back until it is opened, so that a test can act while one is under way.
final class Gate: Sendable {
  typealias Choice = @Sendable (CallKind, String) -> Bool

  private struct State {
    var holds: Choice?
    var held: [Doorbell] = []
    var watcher: CheckedContinuation<Void, Never>?
  }
  private let state = Mutex(State())

  /// Holds the calls of these kinds from now on, on files whose path at their opening ended so: the
  /// log's writer opens `.next` files, the preparation of segments `.partial` ones.
  func close(_ kinds: Set<CallKind>, pathSuffix: String = "") {
    state.withLock { state in
      state.holds = { kind, path in kinds.contains(kind) && path.hasSuffix(pathSuffix) }
    }
  }

  /// Lets all calls through, those that were held first.
  func open() {
    let held = state.withLock { state in
      state.holds = nil
      defer { state.held = [] }
      return state.held
    }
    for bell in held { bell.ring() }
  }

  /// Waits until a call is held.
  func arrival() async {
    await withCheckedContinuation { continuation in
      let isThere = state.withLock { state in
        if state.held.isEmpty { state.watcher = continuation }
        return !state.held.isEmpty
      }
      if isThere { continuation.resume() }
    }
  }

  func pass(_ kind: CallKind, _ path: String) {
    let bell = Doorbell()
    let (isHeld, watcher) = state.withLock { state in
      guard state.holds?(kind, path) == true else {
        return (false, nil as CheckedContinuation<Void, Never>?)
      }
      state.held.append(bell)
      return (true, state.watcher.take())
    }
    watcher?.resume()
    if isHeld { bell.wait() }
  }
}

/// A simulated disk behind a gate for writes and syncs of files.
struct GatedFileSystem: FileSystem {
  let base: SimulatedFileSystem
  let gate = Gate()

  init(_ base: SimulatedFileSystem = SimulatedFileSystem()) { self.base = base }

  func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any File {
    GatedFile(base: try base.open(path, mode), path: path, gate: gate)
  }
  func createDirectory(_ path: String) throws(SystemError) { try base.createDirectory(path) }
  func list(_ directory: String) throws(SystemError) -> [String] { try base.list(directory) }
  func status(_ path: String) throws(SystemError) -> FileStatus? { try base.status(path) }
  func availableBytes(_ path: String) throws(SystemError) -> UInt64 {
    try base.availableBytes(path)
  }
  func rename(_ source: String, to target: String) throws(SystemError) {
    try base.rename(source, to: target)
  }
  func remove(_ path: String) throws(SystemError) { try base.remove(path) }
  func syncDirectory(_ path: String) throws(SystemError) { try base.syncDirectory(path) }
  func lock(_ path: String) throws(SystemError) -> any FileLock { try base.lock(path) }
}

private final class GatedFile: File {
  let base: any File
  let path: String
  let gate: Gate

  init(base: any File, path: String, gate: Gate) {
    self.base = base
    self.path = path
    self.gate = gate
  }

  func read(into buffer: inout MutableRawSpan, at offset: UInt64) throws(SystemError) -> Int {
    try base.read(into: &buffer, at: offset)
  }
  func write(_ bytes: RawSpan, at offset: UInt64) throws(SystemError) {
    gate.pass(.write, path)
    try base.write(bytes, at: offset)
  }
  func syncData() throws(SystemError) {
    gate.pass(.syncData, path)
    try base.syncData()
  }
  func sync() throws(SystemError) {
    gate.pass(.sync, path)
    try base.sync()
  }
  func truncate(to size: UInt64) throws(SystemError) { try base.truncate(to: size) }
  func size() throws(SystemError) -> UInt64 { try base.size() }
  func close() throws(SystemError) { try base.close() }
}
