// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

/// What a sweep over a queue found, and what it did.
public struct SweepReport: Hashable, Sendable {
  /// Messages that were asked for.
  public var matched = 0
  /// Of the records of those that were asked for.
  public var bytes = 0
  /// Of them those that were deleted or moved. The others were received, moved or deleted by
  /// somebody else meanwhile, or have nowhere to go.
  public var done = 0
}

extension Queue {
  /// Deletes the messages of the queue, in whatever state, that `matches` picks: parked and leased
  /// ones, too. Some hundreds at a time, durably, each whole or not at all; so what a crash leaves
  /// is deleted by the same call again. A message that is sent or received while it runs may stay.
  ///
  /// - Parameters:
  ///   - isDryRun: only tells what would be deleted.
  ///   - matches: may be asked more than once about a message.
  /// - Complexity: O(messages of the queue), all of which are read. A parked message that is
  ///   deleted takes eight bytes of memory until the queue has come past it.
  public func purge(
    isDryRun: Bool = false, where matches: (SeenMessage) throws -> Bool
  ) async throws -> SweepReport {
    try await sweep(isDryRun, matches) { messages in
      try await awaited { store.engine.sweep(messages, of: id, to: nil, $0) }
    }
  }

  /// Moves the visible messages of the queue that `matches` picks to another queue, as a move task
  /// does: each is sent there anew and deleted here in one frame of the log. Those of a FIFO queue
  /// keep their order.
  ///
  /// - Parameters:
  ///   - target: of the same kind; nil for the queue from which each was moved here, so that what
  ///     was sent here stays.
  ///   - isDryRun, matches: as in `purge`.
  public func move(
    to target: Queue?, isDryRun: Bool = false, where matches: (SeenMessage) throws -> Bool
  ) async throws -> SweepReport {
    let isPossible = store.engine.look { state in
      target.map { id != $0.id && state.exists($0.id) && state.isFIFO(id) == state.isFIFO($0.id) }
    }
    guard isPossible ?? true else { throw PenstockError(Refusal.moveIsImpossible) }
    let destination: QueueID?? = .some(target?.id)
    let canMove = { (message: SeenMessage) in
      message.state == .visible && (target != nil || message.origin != nil)
    }
    return try await sweep(isDryRun, { try canMove($0) && matches($0) }) { messages in
      try await awaited { store.engine.sweep(messages, of: id, to: destination, $0) }
    }
  }

  private func sweep(
    _ isDryRun: Bool, _ matches: (SeenMessage) throws -> Bool,
    _ act: ([SeenMessage]) async throws -> Int
  ) async throws -> SweepReport {
    let isFIFO = try await describe().settings.isFIFO
    var report = SweepReport()
    // What moved between memory and the log while it was looked at is found by another look.
    for look in 0..<3 {
      var (cursor, left, inOrder) = (WalkCursor() as WalkCursor?, 0, [State.Sight]())
      while let from = cursor {
        let part = try await awaited { store.walk(id, from: from, $0) }
        let found = try part.messages.filter(matches)
        if look == 0 {
          report.matched += found.count
          report.bytes += found.reduce(0) { $0 + $1.sight.resident.size }
        }
        left += found.count
        if isFIFO {
          inOrder += found.map(\.sight)
        } else if !isDryRun {
          for chunk in store.engine.chunks(found, \.sight) {
            let done = try await act(chunk)
            (report.done, left) = (report.done + done, left - done)
          }
        }
        cursor = part.next
      }
      if isDryRun { break }
      inOrder.sort { $0.resident.message < $1.resident.message }
      for chunk in store.engine.chunks(inOrder, \.self) {
        let messages = try await awaited { done in
          store.engine.see(done) { engine throws(PenstockError) in engine.seen(chunk) }
        }
        let done = try await act(messages)
        (report.done, left) = (report.done + done, left - done)
      }
      report.matched = max(report.matched, report.done)
      if left == 0 { break }
    }
    return report
  }
}

extension Engine {
  /// Parts of what is swept that go in one frame each.
  fileprivate func chunks<Item>(_ items: [Item], _ sight: (Item) -> State.Sight) -> [[Item]] {
    var (chunks, size) = ([[Item]](), Int.max)
    for item in items {
      let next = sight(item).resident.size + 4 * Self.smallRecordSize
      if size > maximumGroupSize / 2 - next || chunks[chunks.count - 1].count >= 256 {
        chunks.append([])
        size = 0
      }
      chunks[chunks.count - 1].append(item)
      size += next
    }
    return chunks
  }

  /// Deletes or moves messages that were seen. Answers how many, once that is durable.
  ///
  /// - Parameter target: nil to delete; `.some(nil)` for where each was before.
  fileprivate func sweep(
    _ messages: [SeenMessage], of queue: QueueID, to target: QueueID??,
    _ completion: @escaping Completion<Int>
  ) {
    let size = messages.reduce(0) { sum, message in
      let sent = Draft(SendEntry(message.content), queue, self).largestSize
      return sum + (target == nil ? 0 : sent) + 2 * Self.smallRecordSize
    }
    if let error = badSize(size) { return completion(.failure(error)) }
    submit(drains: target == nil, completion) { engine, shared, actions in
      guard shared.state.exists(queue) else {
        engine.refuse(completion, .noQueue, &shared, &actions)
        return true
      }
      guard let go = engine.room(size, drains: target == nil, completion, &shared, &actions) else {
        return false
      }
      guard go else { return true }
      var (last, done) = (engine.told(shared), 0)
      for message in messages {
        let sight = message.sight
        guard let remove = shared.state.decideRemove(sight, from: queue) else { continue }
        if let target {
          let origin = sight.origin.flatMap { shared.state.queue(named: $0.queue) }
          let group = message.content.groupID.map { engine.hash(Array($0.utf8), in: nil) }
          let id = MessageID(randomHigh: engine.random.next(), randomLow: engine.random.next())
          guard let to = target ?? origin,
            let send = shared.state.decideMove(
              sight, from: queue, to: to, messageID: id, group: group)
          else { continue }
          _ = engine.append(send, message.content, synced: engine.isSynced, &shared)
          shared.wake(to)
        }
        last = engine.append(remove, synced: engine.isSynced, &shared)
        done += 1
      }
      engine.answerDurably(completion, done, after: last, &shared, &actions)
      shared.wake(queue)
      return true
    }
  }
}
