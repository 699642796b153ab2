// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#else
  internal import Darwin
#endif

/// Why a simulated call fails; becomes a `SystemError` where the call is known.
struct Failure: Error {
  var errno: CInt
  init(_ errno: CInt) { self.errno = errno }
}

/// Everything a simulated file system knows, guarded by its mutex. A value, so that a copy is a
/// second machine with the same disk.
struct SimulatedState {
  static let root = 0
  /// The largest file, in bytes; larger ones are a mistake of the caller and fail with `EFBIG`.
  static let sizeLimit: UInt64 = 1 << 36

  let sectorSize: Int
  let traceLimit: Int
  /// Nodes by number; numbers are not used twice.
  var files: [Int: SimulatedNode] = [:]
  var directories: [Int: SimulatedDirectory] = [root: SimulatedDirectory()]
  var lastNode = root
  /// Nodes whose lock is held.
  var locked: Set<Int> = []
  /// Grows with every crash and kill; handles of an older generation are dead.
  var generation = 0
  /// In bytes; nil for no limit.
  var capacity: UInt64?
  var faults: [Fault] = []
  var trace: [Call] = []
  /// Calls so far, by kind.
  var counts: [CallKind: Int] = [:]

  init(sectorSize: Int, traceLimit: Int) {
    self.sectorSize = sectorSize
    self.traceLimit = traceLimit
  }

  /// Counts and records a call and runs `body`, or fails by the first fault that matches; `instead`
  /// then does what the fault says that only this call can do.
  mutating func perform<Result>(
    _ call: Call, instead: (inout SimulatedState, Fault.Effect) -> Void = { _, _ in },
    _ body: (inout SimulatedState) throws(Failure) -> Result
  ) throws(SystemError) -> Result {
    counts[call.kind, default: 0] += 1
    if trace.count >= 2 * traceLimit { trace.removeFirst(trace.count - traceLimit) }
    trace.append(call)
    do throws(Failure) {
      guard let fault = nextFault(call.kind) else { return try body(&self) }
      if fault.effect == .complete { _ = try body(&self) } else { instead(&self, fault.effect) }
      throw Failure(fault.errno)
    } catch {
      trace[trace.count - 1].errno = error.errno
      throw SystemError(call: call.kind.rawValue, path: call.path, errno: error.errno)
    }
  }

  /// Counts a call down in every fault it matches; the first that is due.
  private mutating func nextFault(_ kind: CallKind) -> Fault? {
    var due: Fault?
    var spent: Int?
    for index in faults.indices where faults[index].kinds.contains(kind) {
      if faults[index].skipped > 0 {
        faults[index].skipped -= 1
      } else if due == nil {
        due = faults[index]
        if !faults[index].isPermanent { spent = index }
      }
    }
    if let spent { faults.remove(at: spent) }
    return due
  }

  // MARK: Names

  private func components(_ path: String) throws(Failure) -> [String] {
    let parts = path.split(separator: "/").filter { $0 != "." }.map(String.init)
    if parts.contains("..") { throw Failure(EINVAL) }
    return parts
  }

  private func find(_ components: some Sequence<String>) throws(Failure) -> Int {
    var node = Self.root
    for name in components {
      guard let directory = directories[node] else { throw Failure(ENOTDIR) }
      guard let next = directory.entries[name] else { throw Failure(ENOENT) }
      node = next
    }
    return node
  }

  func find(_ path: String) throws(Failure) -> Int { try find(components(path)) }

  /// The directory that holds or would hold `path`, and the name there.
  func place(_ path: String) throws(Failure) -> (directory: Int, name: String) {
    let parts = try components(path)
    guard let name = parts.last else { throw Failure(EBUSY) }
    let directory = try find(parts.dropLast())
    if directories[directory] == nil { throw Failure(ENOTDIR) }
    return (directory, name)
  }

  /// Adds an empty file or directory.
  mutating func create(_ path: String, isDirectory: Bool) throws(Failure) -> Int {
    let (directory, name) = try place(path)
    if directories[directory]?.entries[name] != nil { throw Failure(EEXIST) }
    lastNode += 1
    if isDirectory {
      directories[lastNode] = SimulatedDirectory()
    } else {
      files[lastNode] = SimulatedNode()
    }
    directories[directory]?.change(removing: nil, adding: name, node: lastNode)
    return lastNode
  }

  mutating func rename(_ source: String, to target: String) throws(Failure) {
    let (directory, name) = try place(source)
    let node = try find(source)
    let (targetDirectory, targetName) = try place(target)
    if directory != targetDirectory { throw Failure(EXDEV) }
    if let replaced = directories[directory]?.entries[targetName] {
      if replaced == node { return }
      switch (directories[node] != nil, directories[replaced]) {
      case (true, nil): throw Failure(ENOTDIR)
      case (false, .some): throw Failure(EISDIR)
      case (true, .some(let old)): if !old.entries.isEmpty { throw Failure(ENOTEMPTY) }
      case (false, nil): break
      }
    }
    directories[directory]?.change(removing: name, adding: targetName, node: node)
  }

  mutating func remove(_ path: String) throws(Failure) {
    let (directory, name) = try place(path)
    let node = try find(path)
    if directories[node] != nil { throw Failure(EISDIR) }
    directories[directory]?.change(removing: name, adding: nil, node: node)
  }

  // MARK: Space

  /// The bytes of all files that have a name.
  var used: UInt64 {
    directories.values.reduce(0) { sum, directory in
      directory.entries.values.reduce(sum) { $0 + UInt64(files[$1]?.current.count ?? 0) }
    }
  }

  /// How far the file may reach: `size`, or less when the capacity does not allow it.
  func reachable(_ node: Int, _ size: UInt64) throws(Failure) -> Int {
    if size > Self.sizeLimit { throw Failure(EFBIG) }
    let present = UInt64(files[node]?.current.count ?? 0)
    guard let capacity, size > present else { return Int(size) }
    let used = used
    return Int(min(size, present + (capacity > used ? capacity - used : 0)))
  }

  /// Writes what there is room for, then fails if that was not all.
  mutating func write(_ bytes: [UInt8], to node: Int, at offset: UInt64) throws(Failure) {
    if offset > Self.sizeLimit { throw Failure(EFBIG) }
    let end = try reachable(node, offset + UInt64(bytes.count))
    let fitting = max(0, end - Int(offset))
    let part = fitting < bytes.count ? Array(bytes.prefix(fitting)) : bytes
    files[node]?.write(part, at: Int(offset), sectorSize: sectorSize)
    if fitting < bytes.count { throw Failure(ENOSPC) }
  }

  // MARK: Power

  /// Ends every handle, lock and fault, as the end of the process does.
  mutating func kill() {
    generation += 1
    locked = []
    faults = []
  }

  mutating func crash(choosing chooser: inout some Chooser, garbling: Bool) {
    kill()
    var keptFiles: [Int: SimulatedNode] = [:]
    var keptDirectories: [Int: SimulatedDirectory] = [:]
    var waiting = [Self.root]
    while let node = waiting.popLast() {
      if var directory = directories[node] {
        directory.crash(choosing: &chooser)
        keptDirectories[node] = directory
        waiting += directory.entries.sorted { $0.key > $1.key }.map(\.value)
      } else if var file = files[node] {
        let garbage = garbling ? StableRandom(seed: UInt64(generation << 32 + node)) : nil
        file.crash(choosing: &chooser, sectorSize: sectorSize, garbage: garbage)
        keptFiles[node] = file
      }
    }
    files = keptFiles
    directories = keptDirectories
  }
}
