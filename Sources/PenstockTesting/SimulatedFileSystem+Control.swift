// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem
internal import Synchronization

/// What a test does to the disk. None of these counts as a call.
extension SimulatedFileSystem {
  // MARK: Power

  /// Power is lost and comes back.
  ///
  /// Each pending change of a name is kept or dropped, each pending file size is one that the file
  /// had since its last sync, and each sector written since then shows one of its states since
  /// then, all independently. Handles of before give `EIO`, locks are free, faults are forgotten.
  /// What is there afterwards is durable.
  /// - Parameters:
  ///   - chooser: makes every decision.
  ///   - garbling: whether a sector with a pending write may also hold garbage.
  public func crash(choosing chooser: inout some Chooser, garbling: Bool = false) {
    state.withLock { $0.crash(choosing: &chooser, garbling: garbling) }
  }

  /// A second disk that is what this one could be after a crash; this one goes on.
  public func crashed(
    choosing chooser: inout some Chooser, garbling: Bool = false
  ) -> SimulatedFileSystem {
    let other = copy()
    other.crash(choosing: &chooser, garbling: garbling)
    return other
  }

  /// A second disk with the same contents, pending changes, faults and locks. Handles and locks
  /// held now belong to this one: end those of the copy by `kill` or `crash`.
  public func copy() -> SimulatedFileSystem { SimulatedFileSystem(state.withLock { $0 }) }

  /// The process dies, the machine lives: handles give `EIO`, locks are free, faults are forgotten.
  /// What was written stays, and what was pending stays pending.
  public func kill() { state.withLock { $0.kill() } }

  // MARK: Faults

  /// Adds a fault. The first added one that is due decides.
  public func inject(_ fault: Fault) { state.withLock { $0.faults.append(fault) } }

  /// Forgets all faults, not the capacity and not what is unreadable.
  public func clearFaults() { state.withLock { $0.faults = [] } }

  /// The bytes that all files together may have; nil for no limit. A call that needs more fails
  /// with `ENOSPC`, a write after writing what fits. May be set below what is used.
  public var capacity: UInt64? {
    get { state.withLock { $0.capacity } }
    set { state.withLock { $0.capacity = newValue } }
  }

  /// The bytes of all files that have a name.
  public var used: UInt64 { state.withLock { $0.used } }

  /// Reads that touch one of `ranges`, in bytes, fail with `EIO` from now on, also after a crash.
  /// An empty list heals the file. Does nothing when there is no such file.
  public func setUnreadable(_ ranges: [Range<UInt64>], in path: String) {
    withFile(path) { $0.unreadable = ranges }
  }

  // MARK: Contents

  /// What a read of the whole file would give; nil when there is no such file.
  public func contents(of path: String) -> [UInt8]? { withFile(path) { $0.current } }

  /// Flips a bit, counted from the lowest of the first byte, on the disk and in what reads see.
  /// Does nothing behind the end or when there is no such file.
  public func flipBit(_ bit: Int, in path: String) { withFile(path) { $0.flip(bit: bit) } }

  /// Gives a file these bytes, durably, and creates it if it is missing. The names in its directory
  /// become durable.
  ///
  /// - Returns: false when its directory is missing or a directory has the name.
  @discardableResult
  public func replace(_ path: String, with bytes: [UInt8]) -> Bool {
    state.withLock { state in
      guard let place = try? state.place(path) else { return false }
      let present = state.directories[place.directory]?.entries[place.name]
      if let present, state.files[present] == nil { return false }
      if present == nil { state.lastNode += 1 }
      let node = present ?? state.lastNode
      state.files[node, default: SimulatedNode()].replace(bytes)
      state.directories[place.directory]?.set(place.name, to: node)
      return true
    }
  }

  /// Takes a name away: a file, or a directory with all that is in it. The names in the directory
  /// that held it become durable.
  ///
  /// - Returns: false when there was none.
  @discardableResult
  public func erase(_ path: String) -> Bool {
    state.withLock { state in
      guard let place = try? state.place(path),
        state.directories[place.directory]?.entries[place.name] != nil
      else { return false }
      state.directories[place.directory]?.set(place.name, to: nil)
      return true
    }
  }

  @discardableResult
  private func withFile<Result: Sendable>(
    _ path: String, _ body: (inout SimulatedNode) -> Result
  ) -> Result? {
    state.withLock { state in
      guard let node = try? state.find(path), state.files[node] != nil else { return nil }
      return body(&state.files[node, default: SimulatedNode()])
    }
  }

  // MARK: Calls

  /// The newest calls, oldest first, at most `traceLimit` of them.
  public var trace: [Call] { state.withLock { Array($0.trace.suffix($0.traceLimit)) } }

  /// How many calls of these kinds there were since the disk was made.
  public func callCount(_ kinds: Set<CallKind> = Set(CallKind.allCases)) -> Int {
    state.withLock { state in kinds.reduce(0) { $0 + state.counts[$1, default: 0] } }
  }
}
