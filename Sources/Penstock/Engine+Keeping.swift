// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

// The keeper: the thread that keeps disk use, memory and the next start small. It writes indexes of
// sealed segments and checkpoints, removes segments in which nothing lives, moves what lives in
// mostly dead ones (`Engine+Compaction.swift`), and reads sealed ones for damage
// (`Engine+Scrubbing.swift`).

/// The state at the end of a segment. A copy: the store goes on while it is written.
struct Snapshot: Sendable {
  var state: State
  /// Every record up to this one is in it.
  var lsn: LSN
  /// The segment that begins behind it.
  var ordinal: UInt32
}

/// What the keeper has under way. Its own thread alone uses it.
struct Keeper: Sendable {
  var compaction: Compaction?
  /// Segments that cannot be compacted: they were read in vain.
  var unreadable: Set<UInt32> = []
  /// Dead segments, and the record that must be durable before they are removed.
  var removal: (segments: [UInt32], lsn: LSN)?
  /// The segment that was verified last, and when the next one is due by the monotonic clock.
  var scrubbed: UInt32?
  var scrubsAt: UInt64 = 0
  /// The log's end at the last look for such a checkpoint.
  var lastLSN: LSN?
  /// When a segment is ended for a checkpoint that is wanted.
  var endsSegmentAt: UInt64 = 0
}

extension Engine {
  /// How long to wait before something is tried again that had no room or failed.
  static let keeperRetry: UInt64 = 1_000_000_000

  /// Notes the end of a segment, before the first record of the next one is applied.
  func segmentEnded(before lsn: LSN, _ next: UInt32, _ shared: inout Shared) {
    shared.segment = next
    shared.segmentsSince += 1
    let newest = log.checkpoints.last
    // A large state is written less often, so that it costs no more than a quarter of the log.
    let isDue =
      shared.loggedSince >= max(options.segmentSize / 2, 4 * Int(newest?.bytes ?? 0))
      || shared.segmentsSince >= 8 || shared.isCheckpointWanted || shared.tail.isShortOfSpace
    guard isDue, shared.snapshot == nil, lsn > LSN(2) else { return }
    shared.snapshot = Snapshot(state: shared.state, lsn: LSN(lsn.value - 1), ordinal: next)
    shared.loggedSince = 0
    shared.segmentsSince = 0
    shared.isCheckpointWanted = false
  }

  func keeperTurn() -> Rest {
    if stopping { return .forGood }
    guard shared.withLock({ if case .running = $0.phase { true } else { false } }) else {
      return .untilRung
    }
    do throws(SystemError) {
      return try keeper.withLock { (keeper) throws(SystemError) in try keep(&keeper) }
    } catch {
      guard error.isOutOfSpace || !["pwrite", "fsync", "fdatasync"].contains(error.call) else {
        fail("keeping the log", error)
        return .untilRung
      }
      options.log?("keeping the log small has to wait: \(error)")
      return .atMost(nanoseconds: Self.keeperRetry)
    }
  }

  private func keep(_ keeper: inout Keeper) throws(SystemError) -> Rest {
    if try writeIndexes() { return .none }
    // What can go goes first: a full disk may have no room for a checkpoint.
    if try removeDead(&keeper) { return .none }
    if try writeCheckpoint(keeper) { return .none }
    if let rest = try compact(&keeper) { return rest }
    if let rest = endSegment(&keeper) { return rest }
    return scrub(&keeper)
  }

  // MARK: Checkpoints

  /// Writes the index of one sealed segment; false when all are written.
  private func writeIndexes() throws(SystemError) -> Bool {
    let next = shared.withLock { shared in
      shared.indexes.keys.filter { $0 < shared.writtenSegment }.min()
        .flatMap { ordinal in shared.indexes[ordinal].map { (ordinal, $0) } }
    }
    guard let (ordinal, index) = next else { return false }
    do throws(SystemError) { try log.writeIndex(index, of: ordinal) } catch {
      // It can be made again from the segment, and memory must not grow.
      guard error.isOutOfSpace else { throw error }
    }
    shared.withLock { shared in shared.indexes[ordinal] = nil }
    return true
  }

  /// Writes the checkpoint that is due; false when none is.
  private func writeCheckpoint(_ keeper: Keeper) throws(SystemError) -> Bool {
    guard let snapshot = shared.withLock({ $0.snapshot }), log.hasBegun(snapshot.ordinal) else {
      return false
    }
    do throws(SystemError) {
      try write(snapshot)
    } catch {
      guard error.isOutOfSpace else { throw error }
      // Dead segments make room as soon as that is durable.
      guard keeper.removal == nil else { return false }
      // Without it nothing could be removed, so room is made: the older checkpoint goes, which this
      // one replaces, then a segment that was prepared.
      if try log.removeOlderCheckpoint() { return true }
      guard shared.withLock({ $0.tail.giveUpPrepared() }) else {
        // The next may be smaller.
        dropSnapshot(wantsAnother: true)
        throw error
      }
      try log.removePrepared()
      return true
    }
    dropSnapshot(wantsAnother: false)
    return true
  }

  private func dropSnapshot(wantsAnother: Bool) {
    // It is freed behind the lock.
    _ = shared.withLock { shared in
      if wantsAnother { shared.isCheckpointWanted = true }
      return shared.snapshot.take()
    }
  }

  private func write(_ snapshot: Snapshot) throws(SystemError) {
    try log.writeCheckpoint(lsn: snapshot.lsn, ordinal: snapshot.ordinal) {
      (buffer, flush) throws(SystemError) in try snapshot.state.encode(buffer, flush: flush)
    }
  }

  /// Asks for a checkpoint when too much disk is used and nothing before the older one is left to
  /// give up. A store that is busy ends its segment soon; for one that is not the keeper does.
  private func endSegment(_ keeper: inout Keeper) -> Rest? {
    let horizon = log.horizon
    guard excess() > 0 else { return nil }
    let now = clock.monotonicNanoseconds()
    let newest = Int(log.checkpoints.last?.bytes ?? 0)
    var pause: UInt64?
    critical { shared, actions in
      guard shared.refusal == nil, shared.snapshot == nil, horizon + 1 < shared.segment else {
        return
      }
      // A busy store with a large state must not write checkpoints alone.
      let isIdle = keeper.lastLSN == shared.tail.nextLSN
      keeper.lastLSN = shared.tail.nextLSN
      pause = Self.keeperRetry
      guard shared.isCheckpointWanted || isIdle || shared.loggedSince >= newest else { return }
      if !shared.isCheckpointWanted {
        shared.isCheckpointWanted = true
        keeper.endsSegmentAt = now + Self.keeperRetry
      }
      if now < keeper.endsSegmentAt {
        pause = keeper.endsSegmentAt - now
      } else if shared.tail.endSegment(for: Self.smallRecordSize) {
        logCleared(&shared, &actions)
      }
    }
    return pause.map { .atMost(nanoseconds: $0) }
  }

  // MARK: Removing

  /// Removes segments in which nothing lives; false when there are none.
  ///
  /// Crash steps: (1) the records that emptied a segment are durable; (2) its name goes. A crash
  /// before (2) leaves an empty segment, which is removed later. Both kept checkpoints lie behind
  /// it, so no replay needs it.
  private func removeDead(_ keeper: inout Keeper) throws(SystemError) -> Bool {
    if let removal = keeper.removal {
      let isDurable = shared.withLock { $0.tail.durableLSN >= removal.lsn }
      guard isDurable || plantedBug == .removesTooEarly else { return false }
      keeper.removal = nil
      for segment in removal.segments { try log.removeSegment(segment) }
      if !removal.segments.isEmpty { preparerBell.ring() }
      return true
    }
    let horizon = horizon
    let old = log.segments.keys.filter { $0 < horizon }
    guard !old.isEmpty else { return false }
    var lsn: LSN?
    var dead: [UInt32] = []
    critical { shared, actions in
      dead = old.filter { shared.state.residents[$0] == nil }.sorted()
      guard !dead.isEmpty, shared.refusal == nil else { return }
      lsn = appendCleared(&shared, &actions)
    }
    guard let lsn else { return false }
    keeper.removal = (dead, lsn)
    return true
  }

  /// Segments before this one are needed for the bodies of messages alone.
  var horizon: UInt32 {
    plantedBug == .removesBehindOneCheckpoint
      ? log.checkpoints.last?.ordinal ?? 0 : log.horizon
  }

  /// Logs a record that says nothing, for its sync; the keeper is rung when it is durable.
  private func appendCleared(_ shared: inout Shared, _ actions: inout Actions) -> LSN? {
    // It may take what is kept for deletes: it gives back more.
    guard case .ready = shared.tail.makeRoom(Self.smallRecordSize, keepingReserve: false)
    else { return nil }
    return logCleared(&shared, &actions)
  }

  @discardableResult
  private func logCleared(_ shared: inout Shared, _ actions: inout Actions) -> LSN {
    let entry = Entry(queue: QueueID(0), time: shared.state.time, record: .cleared)
    let lsn = append(entry, synced: true, &shared)
    answer(after: lsn, synced: true, &shared, &actions) { _, actions in
      actions.ringsKeeper = true
    }
    return lsn
  }

  /// Frees memory of messages that were purged, when no other records do; false when there is none.
  func clearDying() -> Bool {
    var isDone = true
    critical { shared, actions in
      for _ in 0..<64 where shared.state.dyingCount > 0 && shared.refusal == nil {
        let entry = Entry(queue: QueueID(0), time: shared.state.time, record: .cleared)
        guard
          case .ready = shared.tail.makeRoom(
            Self.smallRecordSize, keepingReserve: false, keepingDeletes: true)
        else { return }
        _ = append(entry, synced: false, &shared)
        isDone = false
      }
    }
    return !isDone
  }
}
