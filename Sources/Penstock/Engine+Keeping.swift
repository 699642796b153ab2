// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

// The keeper: the thread that keeps disk use, memory and the next start small. It writes indexes of
// sealed segments and checkpoints, removes segments in which nothing lives, moves what lives in
// mostly dead ones (`Engine+Compaction.swift`), and reads sealed ones for damage
// (`Engine+Scrubbing.swift`).

/// What the keeper has under way. Its own thread alone uses it.
struct Keeper: Sendable {
  /// The state behind a record, and the segment that holds that: to be written as a checkpoint as
  /// soon as the record is durable. A copy: the store goes on while it is written.
  var snapshot: (state: State, lsn: LSN, ordinal: UInt32)?
  /// The log's end at the last look, and when it counts as idle if it has not grown.
  var lastLSN = LSN(0)
  var idleAt: UInt64 = 0
  var compaction: Compaction?
  /// Segments that cannot be compacted: they were read in vain.
  var unreadable: Set<UInt32> = []
  /// Dead segments, and the record that must be durable before they are removed.
  var removal: (segments: [UInt32], lsn: LSN)?
  /// When the next messages of a move task are due, by the monotonic clock.
  var moves: [MessageID: UInt64] = [:]
  /// The segment that was verified last, and when the next one is due by the monotonic clock.
  var scrubbed: UInt32?
  var scrubsAt: UInt64 = 0
}

extension Engine {
  /// How long to wait before something is tried again that had no room or failed.
  static let keeperRetry: UInt64 = 1_000_000_000
  /// The same where a segment is being prepared.
  static let roomRetry: UInt64 = 10_000_000

  func keeperTurn() -> Rest {
    if stopping { return .forGood }
    guard shared.withLock({ if case .running = $0.phase { true } else { false } }) else {
      return .untilRung
    }
    do throws(SystemError) {
      let moving = keeper.withLock { moveMessages(&$0) }
      let rest = try keeper.withLock { (keeper) throws(SystemError) in try keep(&keeper) }
      brake(rest)
      return rest.orSooner(moving)
    } catch {
      brake(.untilRung)
      guard error.isOutOfSpace || !["pwrite", "fsync", "fdatasync"].contains(error.call) else {
        fail("keeping the log", error)
        return .untilRung
      }
      options.log?("keeping the log small has to wait: \(error)")
      return .atMost(nanoseconds: Self.keeperRetry)
    }
  }

  /// While the keeper makes room and the files are within half a segment of their bound, sends and
  /// receives may take no more than it gives back: see `Shared.allowance`. One that waits itself,
  /// or gets nowhere, as with a damaged segment, holds up nobody.
  private func brake(_ rest: Rest) {
    var isBehind = false
    if case .none = rest { isBehind = excess() > 3 * options.segmentSize / 2 }
    let wasBehind = shared.withLock { shared in
      // A full disk refuses; it does not let wait.
      if shared.tail.isShortOfSpace { isBehind = false }
      return shared.allowance != nil
    }
    guard wasBehind != isBehind else { return }
    critical { shared, actions in
      shared.allowance = isBehind ? 0 : nil
      retryWaitingForRoom(&shared, &actions)
    }
  }

  private func keep(_ keeper: inout Keeper) throws(SystemError) -> Rest {
    if try writeIndexes() { return .none }
    // What can go goes first: a full disk may have no room for a checkpoint.
    if try removeDead(&keeper) { return .none }
    let rest = try checkpoint(&keeper)
    if case .none = rest { return .none }
    return rest.orSooner(try compact(&keeper) ?? scrub(&keeper))
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

  /// Takes a snapshot when a checkpoint is due, and writes it once its records are durable.
  private func checkpoint(_ keeper: inout Keeper) throws(SystemError) -> Rest {
    if keeper.snapshot == nil {
      switch takeSnapshot(&keeper) {
      case .taken: break
      case .notDue(let rest): return rest
      // On a full disk, right after a start: the one that is there must do.
      case .noRoom:
        return try log.relyOnNewest() ? .none : .atMost(nanoseconds: Self.keeperRetry)
      }
    }
    guard let snapshot = keeper.snapshot,
      shared.withLock({ $0.tail.durableLSN >= snapshot.lsn })
        || plantedBug == .snapshotsTheUndurable
    else { return .untilRung }
    do throws(SystemError) {
      try log.writeCheckpoint(lsn: snapshot.lsn, ordinal: snapshot.ordinal) {
        (buffer, flush) throws(SystemError) in try snapshot.state.encode(buffer, flush: flush)
      }
      let bytes = log.checkpoints.last?.bytes ?? 0
      options.onEvent?(.checkpointWritten(lsn: snapshot.lsn.value, bytes: bytes))
    } catch {
      guard error.isOutOfSpace else { throw error }
      // Dead segments make room as soon as that is durable.
      guard keeper.removal == nil else { return .untilRung }
      // Without it nothing could be removed, so room is made: the older checkpoint goes, which this
      // one replaces, then a segment that was prepared.
      if try log.removeOlderCheckpoint() { return .none }
      guard shared.withLock({ $0.tail.giveUpPrepared() }) else {
        // The next may be smaller; it is due at once.
        keeper.snapshot = nil
        shared.withLock { $0.segmentsSince = Self.segmentsBetween }
        throw error
      }
      try log.removePrepared()
      return .none
    }
    keeper.snapshot = nil
    return .none
  }

  private enum Taking {
    case taken
    case notDue(Rest)
    /// Nothing was logged since the newest checkpoint, and nothing can be.
    case noRoom
  }

  /// Segments after which a checkpoint is due in any case.
  static let segmentsBetween = 8

  /// Copies the state if a checkpoint is due.
  private func takeSnapshot(_ keeper: inout Keeper) -> Taking {
    let newest = log.checkpoints.last
    let (excess, horizon) = (excess(), log.horizon)
    // What two checkpoints here would let go, if it is dead.
    let gain = log.segments.reduce(0) { $0 + ($1.key < horizon ? 0 : Int($1.value.bytes)) }
    let now = clock.monotonicNanoseconds()
    var taking = Taking.notDue(.untilRung)
    critical { shared, actions in
      guard shared.refusal == nil, shared.lastLSN > LSN(1) else { return }
      if keeper.lastLSN != shared.lastLSN {
        (keeper.lastLSN, keeper.idleAt) = (shared.lastLSN, now + Self.keeperRetry)
      }
      let helps =
        horizon < shared.segment
        && (shared.tail.isShortOfSpace || excess > 0 && gain >= 3 * options.segmentSize / 2)
      guard isDue(shared, Int(clamping: newest?.bytes ?? 0), helps, isIdle: now >= keeper.idleAt)
      else {
        if helps { taking = .notDue(.atMost(nanoseconds: keeper.idleAt - now)) }
        return
      }
      // Two checkpoints differ by a record; and its time is what a replay comes to.
      if appendCleared(&shared, &actions) == nil {
        let isFull = shared.tail.isShortOfSpace && shared.tail.durableLSN >= shared.lastLSN
        taking = isFull ? .noRoom : .notDue(.atMost(nanoseconds: Self.roomRetry))
        guard isFull, newest?.lsn != shared.lastLSN else { return }
      }
      keeper.snapshot = (shared.state, shared.lastLSN, shared.segment)
      keeper.lastLSN = shared.lastLSN
      shared.loggedSince = 0
      shared.segmentsSince = 0
      taking = .taken
    }
    return taking
  }

  /// A checkpoint is due when a start would read much, and when too much disk is used and what is
  /// dead lies behind the older one. A large state is written less often, so that it costs no more
  /// than a quarter of the log, or as much as the log when it helps against use of the disk.
  ///
  /// - Parameters:
  ///   - size: of the newest, in bytes.
  ///   - helps: it would make room.
  private func isDue(_ shared: borrowing Shared, _ size: Int, _ helps: Bool, isIdle: Bool) -> Bool {
    if shared.segmentsSince >= Self.segmentsBetween { return true }
    let logged = shared.loggedSince
    if logged >= max(options.segmentSize / 2, 4 * size) { return true }
    let least = shared.tail.isShortOfSpace ? 0 : options.segmentSize / 4
    return helps && (isIdle || logged >= max(size, least))
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
      let before = log.bytes
      for segment in removal.segments { try log.removeSegment(segment) }
      let freed = Int(clamping: before) - Int(clamping: log.bytes)
      options.onEvent?(.segmentsRemoved(numbers: removal.segments))
      preparerBell.ring()
      critical { shared, actions in
        shared.metrics.removedSegments += UInt64(removal.segments.count)
        guard let allowance = shared.allowance else { return }
        shared.allowance = min(allowance + freed, 2 * options.segmentSize)
        retryWaitingForRoom(&shared, &actions)
      }
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
      let isDurable = shared.tail.durableLSN >= shared.lastLSN
      lsn = isDurable ? shared.lastLSN : appendCleared(&shared, &actions)
    }
    guard let lsn else { return false }
    keeper.removal = (dead, lsn)
    return true
  }

  /// Segments before this one are needed for the bodies of messages alone.
  var horizon: UInt32 {
    plantedBug == .removesBehindOneCheckpoint ? log.checkpoints.last?.ordinal ?? 0 : log.horizon
  }

  /// Logs a record that says nothing, for its sync; the keeper is rung when it is durable.
  private func appendCleared(_ shared: inout Shared, _ actions: inout Actions) -> LSN? {
    guard case .ready = shared.tail.makeRoom(Self.smallRecordSize, for: .upkeep) else { return nil }
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
        guard case .ready = shared.tail.makeRoom(Self.smallRecordSize, for: .lease) else { return }
        _ = append(entry, synced: false, &shared)
        isDone = false
      }
    }
    return !isDone
  }
}
