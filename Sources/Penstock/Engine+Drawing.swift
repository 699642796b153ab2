// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

// Waiting messages come from their segments into memory ahead of need. The reader finds where they
// stand, a record says that they were drawn: so every start gives them the slots they had.

extension Engine {
  /// Lets the reader fetch waiting messages when few are left in memory.
  func requestDraw(for queue: QueueID, _ shared: inout Shared, _ actions: inout Actions) {
    guard !shared.drawing.contains(queue),
      let draw = shared.state.decideDraw(queue)
    else { return }
    shared.drawing.insert(queue)
    actions.reads.append(.draw(draw))
  }

  /// Finds where the messages of a draw stand and takes them into memory.
  func draw(_ draw: State.Draw) {
    var found: [WaitingMessage] = []
    var failure: PenstockError?
    do throws(LogError) {
      found = try waiting(draw)
      if found.isEmpty {
        failure = PenstockError(
          .corrupted,
          "segment number \(draw.segment) does not hold the messages that wait there, from LSN "
            + "\(draw.first) to \(draw.last)")
      }
    } catch {
      failure = PenstockError(error)
    }
    let messages = found
    critical { shared, actions in
      guard let failure else {
        let attempt: Attempt = { engine, shared, actions in
          engine.finish(draw, messages, &shared, &actions)
        }
        if !attempt(self, &shared, &actions) { shared.drainsWaitingForRoom.append(attempt) }
        return
      }
      shared.drawing.remove(draw.queue)
      // The run may be another by now: then the failure says nothing.
      guard shared.state.decideDraw(draw.queue) == draw else {
        requestDraw(for: draw.queue, &shared, &actions)
        return
      }
      report(failure.description, &actions)
      answerAll(on: draw.queue, with: failure, &shared, &actions)
    }
  }

  /// Logs a line once the lock is released.
  private func report(_ line: String, _ actions: inout Actions) {
    guard let log = options.log else { return }
    actions.callbacks.append { log(line) }
  }

  private func answerAll(
    on queue: QueueID, with error: PenstockError, _ shared: inout Shared, _ actions: inout Actions
  ) {
    for waiter in shared.waiters.removeAll(on: queue) {
      actions.call(waiter.completion, .failure(error))
    }
    // None of them waits for room any more.
    retryReceives(&shared, &actions)
  }

  /// Logs a draw and serves those who waited for it; false when there is no room yet.
  private func finish(
    _ draw: State.Draw, _ messages: [WaitingMessage], _ shared: inout Shared,
    _ actions: inout Actions
  ) -> Bool {
    let entry = shared.refusal == nil ? shared.state.decideDrawn(draw, messages) : nil
    // Unless all that was found was taken out meanwhile.
    let isThere = !shared.state.withoutHoles(draw.queue, messages).isEmpty
    if entry == nil, isThere, shared.refusal == nil, shared.state.decideDraw(draw.queue) == draw {
      let failure = PenstockError(
        .corrupted, "the index of segment number \(draw.segment) does not fit it; it is made again")
      shared.drawing.remove(draw.queue)
      shared.indexes[draw.segment] = nil
      shared.wrongIndexes.insert(draw.segment)
      report(failure.description, &actions)
      answerAll(on: draw.queue, with: failure, &shared, &actions)
      return true
    }
    if let entry {
      let size = LogFormat.recordSize(payload: entry.payloadSize())
      switch shared.tail.makeRoom(size, for: .lease) {
      case .ready: noteDraw(draw, append(entry, synced: false, &shared), &shared)
      case .wait: return false
      case .full:
        shared.drawing.remove(draw.queue)
        answerAll(on: draw.queue, with: .full, &shared, &actions)
        return true
      }
    }
    shared.drawing.remove(draw.queue)
    if shared.refusal == nil { requestDraw(for: draw.queue, &shared, &actions) }
    retryReceives(&shared, &actions)
    return true
  }

  /// Notes a draw until it is durable: a handle names its message's slot, which a loss of power
  /// would take, and a delete by the handle would then find nothing to delete.
  private func noteDraw(_ draw: State.Draw, _ lsn: LSN, _ shared: inout Shared) {
    let durable = shared.tail.durableLSN
    shared.undurableDraws = shared.undurableDraws.filter { $0.value.lsn > durable }
    let first = shared.undurableDraws[draw.queue]?.first ?? draw.first
    shared.undurableDraws[draw.queue] = (lsn, first)
  }

  /// Whether a message's slot could still be lost.
  func slotMayVanish(_ message: UInt64, of queue: QueueID, _ shared: borrowing Shared) -> Bool {
    guard let draw = shared.undurableDraws[queue] else { return false }
    return draw.lsn > shared.tail.durableLSN && message >= draw.first
  }

  // MARK: Indexes

  /// Where waiting messages stand: from memory, from the segment's index, or from the segment.
  ///
  /// - Returns: the first of them, `limit` at most; none when there is no more.
  func waiting(_ draw: State.Draw) throws(LogError) -> [WaitingMessage] {
    var draw = draw
    while true {
      let listed = try listed(draw)
      let there = look { $0.withoutHoles(draw.queue, listed) }
      guard there.isEmpty, let last = listed.last, last.message < draw.last else { return there }
      draw.first = last.message + 1
    }
  }

  /// The same with those that were taken out of the queue.
  private func listed(_ draw: State.Draw) throws(LogError) -> [WaitingMessage] {
    let (known, isWrong) = shared.withLock { shared in
      let known = shared.indexes[draw.segment]?.entries(
        queue: draw.queue.value, from: draw.first, through: draw.last, limit: draw.limit)
      return (known, shared.wrongIndexes.contains(draw.segment))
    }
    var entries = known
    if entries == nil, !isWrong {
      do throws(SystemError) {
        entries = try log.waiting(
          in: draw.segment, queue: draw.queue.value, from: draw.first, through: draw.last,
          limit: draw.limit)
      } catch {
        guard error.call == "pread" else { throw .system(error) }
      }
    }
    if entries == nil {
      let index = try makeIndex(of: draw.segment)
      // The keeper writes it.
      shared.withLock { shared in
        shared.indexes[draw.segment] = index
        shared.wrongIndexes.remove(draw.segment)
      }
      keeperBell.ring()
      entries = index.entries(
        queue: draw.queue.value, from: draw.first, through: draw.last, limit: draw.limit)
    }
    return entries ?? []
  }

  private func makeIndex(of segment: UInt32) throws(LogError) -> SegmentIndex {
    var index = SegmentIndex()
    try log.scan(segment) { (place, payload) throws(LogError) in
      do throws(RecordError) {
        if let parked = try Entry(payload).parked(place, payload) { index.append(parked) }
      } catch {
        throw .damaged(place, error)
      }
    }
    return index
  }
}

extension LogError {
  /// A record that is whole and cannot be.
  static func damaged(_ place: SegmentedLog.Replayed, _ error: RecordError) -> LogError {
    .damaged(
      "segment \(place.position.segment)", at: UInt64(place.position.offset), lsn: place.lsn,
      error.description)
  }
}

extension Entry {
  /// What a parked message must be found by.
  func parked(_ place: SegmentedLog.Replayed, _ payload: borrowing RawSpan) -> State.Parked? {
    parked(
      lsn: place.lsn.value, position: place.position.packed,
      size: LogFormat.recordSize(payload: payload.byteCount))
  }
}

extension SegmentIndex {
  mutating func append(_ parked: State.Parked) {
    append(parked.message, queue: parked.queue.value, isCopy: parked.isCopy)
  }
}
