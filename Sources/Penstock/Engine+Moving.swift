// SPDX-License-Identifier: Apache-2.0
public import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

// Move tasks are carried out by the keeper, a few messages per turn: their bytes are read, then
// under the lock each is sent anew to its destination and deleted where it is. Both records and the
// task's progress are in one frame: a crash moves a message or does not.

extension Store {
  /// Starts to move what is visible in a queue to another one, as new messages: with new ids and
  /// send times, never received. What is leased or delayed stays. It ends when nothing is visible.
  ///
  /// A destination of nil sends each message to the queue that it was moved from; a
  /// `maximumPerSecond` of nil is as fast as it can.
  public func startMoveTask(
    from source: QueueID, to destination: QueueID?, maximumPerSecond: Int? = nil,
    _ completion: @escaping Completion<MoveTask>
  ) {
    if let rate = maximumPerSecond, !(1...Int(Int32.max)).contains(rate) {
      return completion(
        .failure(PenstockError(.invalidArgument, "a task moves 1 message per second at least")))
    }
    let id = MessageID(randomHigh: engine.random.next(), randomLow: engine.random.next())
    engine.log(completion, source, id) { state throws(Refusal) in
      try state.decideStartMove(source, to: destination, rate: maximumPerSecond, taskID: id)
    }
  }

  /// Tells a task to stop after the messages at hand. What it has moved stays moved.
  public func cancelMoveTask(
    _ id: MessageID, from source: QueueID, _ completion: @escaping Completion<MoveTask>
  ) {
    engine.log(completion, source, id) { state throws(Refusal) in
      try state.decideCancelMove(source, id)
    }
  }

  /// The last ten tasks of a queue, the newest first.
  public func moveTasks(of source: QueueID) -> [MoveTask] {
    engine.look { $0.moveTasks(of: source) }
  }
}

extension Engine {
  /// Messages that are moved under one lock, and about how many bytes of them.
  private static let movesAtOnce = 64
  private static let bytesMovedAtOnce = 128 << 10
  /// How long to wait when nothing could be moved.
  private static let drawRetry: UInt64 = 100_000_000

  /// Logs a change of a task and answers with the task as it is then.
  fileprivate func log(
    _ completion: @escaping Completion<MoveTask>, _ source: QueueID, _ id: MessageID,
    _ decide: @escaping @Sendable (State) throws(Refusal) -> Entry
  ) {
    log(completion, decide) { shared, actions in
      actions.ringsKeeper = true
      return shared.state.moveTasks(of: source).first { $0.id == id }
    }
  }

  private struct Move {
    var sight: State.Sight
    var target: QueueID
    var content: MessageContent
  }

  /// Does a piece of every task that is due.
  func moveMessages(_ keeper: inout Keeper) -> Rest {
    let tasks = shared.withLock { $0.state.activeTasks }
    guard !tasks.isEmpty else { return .untilRung }
    var rest = Rest.untilRung
    for task in tasks {
      let now = clock.monotonicNanoseconds()
      let due = keeper.moves[task.id] ?? 0
      if due > now, task.status == .running {
        rest = rest.orSooner(.atMost(nanoseconds: due - now))
        continue
      }
      let next = move(task)
      if case .atMost(let pause) = next { keeper.moves[task.id] = now &+ pause }
      rest = rest.orSooner(next)
    }
    keeper.moves = keeper.moves.filter { entry in tasks.contains { $0.id == entry.key } }
    return rest
  }

  private func move(_ task: MoveTask) -> Rest {
    guard task.status == .running else { return end(task, .cancelled) }
    let limit = task.rate == nil ? Self.movesAtOnce : 1
    var (found, hasMore) = ([(State.Sight, State.Destination)](), false)
    critical { shared, actions in
      guard case .ready = removeExpired(on: task.source, &shared) else { return hasMore = true }
      found = shared.state.next(task.source, limit: limit).map {
        ($0, shared.state.destination(of: $0, task))
      }
      requestDraw(for: task.source, &shared, &actions)
      hasMore = shared.state.hasParked(task.source)
    }
    guard !found.isEmpty else {
      // A draw that fails is tried again in a while.
      return hasMore ? .atMost(nanoseconds: Self.drawRetry) : end(task, .completed)
    }
    var (moves, size) = ([Move](), 0)
    for (sight, destination) in found where size < Self.bytesMovedAtOnce {
      switch destination {
      case .failure(let status):
        // What comes before it is moved first.
        if moves.isEmpty { return end(task, status) }
        size = Self.bytesMovedAtOnce
      case .queue(let target):
        // Only what is written; the rest is looked at again.
        let resident = sight.resident
        let position = LogPosition(packed: resident.position)
        guard shared.withLock({ $0.tail.isWritten(position) }) else { continue }
        do throws(LogError) {
          let stored = try self.stored(
            at: position, of: resident.bytesQueue, resident.message, keeperWindow)
          moves.append(Move(sight: sight, target: target, content: stored.content))
          size += resident.size
        } catch {
          options.log?("message with LSN \(resident.message) cannot be moved: \(error)")
          // Compaction may have moved it, or the disk may fail: only damage is set aside.
          if case .corrupted = error { setAside(resident) }
        }
      }
    }
    func recordsSize() -> Int {
      moves.reduce(Self.smallRecordSize) {
        $0 + $1.content.largestSize + Self.smallRecordSize
      }
    }
    while moves.count > 1, recordsSize() > maximumGroupSize { moves.removeLast() }
    guard moves.isEmpty || recordsSize() <= maximumGroupSize else {
      return end(task, .failedTooLarge)
    }
    switch carryOut(moves, task, recordsSize()) {
    case nil:
      let isFull = shared.withLock { $0.tail.isShortOfSpace }
      return .atMost(nanoseconds: isFull ? Self.keeperRetry : Self.roomRetry)
    // Nothing could be read, or all of it was received meanwhile.
    case 0: return .atMost(nanoseconds: Self.drawRetry)
    default:
      guard let rate = task.rate else { return .none }
      return .atMost(nanoseconds: 1_000_000_000 / UInt64(rate))
    }
  }

  /// Moves messages in one frame; nil when there is no room for that now, else how many.
  private func carryOut(_ moves: [Move], _ task: MoveTask, _ size: Int) -> Int? {
    if moves.isEmpty { return 0 }
    var moved: Int?
    critical { shared, actions in
      guard shared.refusal == nil else { return }
      if let allowance = shared.allowance, allowance <= 0 { return }
      guard case .ready = shared.tail.makeRoom(size, for: .send) else { return }
      shared.spend(size)
      var count = 0
      // A group keeps its order: what cannot be moved yet is not overtaken.
      for move in moves where !shared.state.isOvertaken(move.sight.resident) {
        let lsn = carryOut(
          move.sight, move.content, from: task.source, to: move.target, synced: false, &shared)
        if lsn != nil { count += 1 }
      }
      if count > 0 { _ = append(shared.state.decideMoved(task, count), synced: false, &shared) }
      moved = count
    }
    return moved
  }

  /// Sends a message of another queue anew and deletes it there; nil when it cannot be moved.
  func carryOut(
    _ sight: State.Sight, _ content: MessageContent, from source: QueueID, to target: QueueID,
    synced: Bool, _ shared: inout Shared
  ) -> LSN? {
    let id = MessageID(randomHigh: random.next(), randomLow: random.next())
    let group = content.groupID.map { hash($0.utf8, in: nil) }
    guard let remove = shared.state.decideRemove(sight, from: source),
      let send = shared.state.decideMove(
        sight, from: source, to: target, messageID: id, group: group)
    else { return nil }
    let counted = content.countedSize
    _ = append(
      send, payload: send.payloadSize(content), content: counted, synced: synced, &shared
    ) { send.encode(content, into: $0) }
    shared.wake(target)
    return append(remove, synced: synced, &shared)
  }

  private func end(_ task: MoveTask, _ status: MoveTask.Status) -> Rest {
    var isDone = true
    critical { shared, _ in
      // The queue may be gone, and the task with it.
      guard shared.refusal == nil,
        shared.state.moveTasks(of: task.source).contains(where: { $0.id == task.id })
      else { return }
      guard case .ready = shared.tail.makeRoom(Self.smallRecordSize, for: .lease) else {
        return isDone = false
      }
      // Who hears that it has ended may rely on what it moved.
      _ = append(shared.state.decideChange(task, status), synced: isSynced, &shared)
    }
    return isDone ? .none : .atMost(nanoseconds: Self.roomRetry)
  }
}
