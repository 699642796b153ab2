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
  /// does: each is sent there anew and deleted here in one frame of the log. Groups of a FIFO queue
  /// keep their order: behind a message that is picked and cannot be moved, because it is leased or
  /// delayed, none of its group is.
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
    let canMove = { (message: SeenMessage) in target != nil || message.origin != nil }
    return try await sweep(isDryRun, moves: true, { try canMove($0) && matches($0) }) { messages in
      try await awaited { store.engine.sweep(messages, of: id, to: destination, $0) }
    }
  }

  private func sweep(
    _ isDryRun: Bool, moves: Bool = false, _ matches: (SeenMessage) throws -> Bool,
    _ act: ([SeenMessage]) async throws -> Int
  ) async throws -> SweepReport {
    let isOrdered = moves ? try await describe().settings.isFIFO : false
    var report = SweepReport()
    // What was moved in the log while it was looked at is found by another look.
    for look in 0..<16 {
      var (cursor, left) = (WalkCursor() as WalkCursor?, 0)
      var inOrder: [(sight: State.Sight, group: String)] = []
      while let from = cursor {
        let part = try await awaited { store.walk(id, from: from, $0) }
        cursor = part.next
        let found = try part.messages.filter { message in
          // What was not read cannot be picked, nor left out.
          if let failure = message.failure { throw failure }
          return try matches(message)
        }
        if isOrdered {
          inOrder += found.map { ($0.sight, $0.content.groupID ?? "") }
          continue
        }
        let picked = found.filter { !moves || $0.state == .visible }
        if look == 0 { report.count(picked.map(\.sight)) }
        for chunk in isDryRun ? [] : store.engine.chunks(picked, \.sight) {
          let done = try await act(chunk)
          (report.done, left) = (report.done + done, left + chunk.count - done)
        }
      }
      if isOrdered { try await moveInOrder(inOrder, isDryRun, &report, act) }
      if isDryRun || isOrdered || left == 0 { break }
    }
    report.matched = max(report.matched, report.done)
    return report
  }

  /// Moves messages of a FIFO queue. In each group it ends at the first that cannot be moved, and
  /// altogether where somebody else was faster, so that none overtakes another.
  private func moveInOrder(
    _ found: [(sight: State.Sight, group: String)], _ isDryRun: Bool,
    _ report: inout SweepReport, _ act: ([SeenMessage]) async throws -> Int
  ) async throws {
    var held: Set<String> = []
    let sights = found.sorted { $0.sight.resident.message < $1.sight.resident.message }
      .filter { found in
        if found.sight.state != .visible { held.insert(found.group) }
        return !held.contains(found.group)
      }.map(\.sight)
    report.count(sights)
    for chunk in isDryRun ? [] : store.engine.chunks(sights, \.self) {
      let messages = try await awaited { done in
        store.engine.see(done) { engine throws(PenstockError) in engine.seen(chunk) }
      }
      guard messages.count == chunk.count else { return }
      let done = try await act(messages)
      report.done += done
      if done < chunk.count { return }
    }
  }
}

extension SweepReport {
  fileprivate mutating func count(_ sights: [State.Sight]) {
    matched += sights.count
    bytes += sights.reduce(0) { $0 + $1.resident.size }
  }
}

extension Store {
  /// Deletes messages of a queue that were seen, in whatever state; answers how many.
  package func sweep(
    _ messages: [SeenMessage], of queue: QueueID, _ completion: @escaping Completion<Int>
  ) { engine.sweep(messages, of: queue, to: nil, completion) }

  /// Whether a message is in a queue.
  package func holds(_ lsn: UInt64, in queue: QueueID) -> Bool {
    engine.look { $0.holds(lsn, in: queue) }
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
      sum + (target == nil ? 0 : message.stored.largestSize) + 2 * Self.smallRecordSize
    }
    // One that is too large for a frame of the log stays where it is.
    if badSize(size) != nil { return completion(.success(0)) }
    submit(drains: target == nil, completion) { engine, shared, actions in
      guard shared.state.exists(queue) else {
        engine.refuse(completion, .noQueue, &shared, &actions)
        return true
      }
      let drains = target == nil
      if let isDone = engine.refusesRoom(size, drains: drains, completion, &shared, &actions) {
        return isDone
      }
      var (last, done) = (engine.told(shared), 0)
      for message in messages {
        var lsn: LSN?
        if let target {
          let origin = message.sight.origin.flatMap { shared.state.queue(named: $0.queue) }
          if let to = target ?? origin {
            lsn = engine.carryOut(
              message.sight, message.stored, from: queue, to: to, synced: engine.isSynced, &shared)
          }
          // Those behind it in its group must not overtake it.
          if lsn == nil, shared.state.isFIFO(queue) { break }
        } else if let remove = shared.state.decideRemove(message.sight, from: queue) {
          lsn = engine.append(remove, synced: engine.isSynced, &shared)
        }
        guard let lsn else { continue }
        (last, done) = (lsn, done + 1)
      }
      engine.answerDurably(completion, done, after: last, &shared, &actions)
      shared.wake(queue)
      return true
    }
  }
}
