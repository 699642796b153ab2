// SPDX-License-Identifier: Apache-2.0

// Move tasks: all that is visible in a queue goes to another one, or back to where it came from, as
// new messages. What was asked for, how far it came and how it ended is in the log, so a task goes
// on after a restart. The moves themselves are a send and a delete in one frame.

/// A task that moves a queue's messages.
public struct MoveTask: Hashable, Sendable {
  /// How far a task is. The number stands in the log.
  public enum Status: UInt8, Hashable, Sendable {
    case running = 1
    /// It was told to stop, and has not noticed yet.
    case cancelling = 2
    case completed = 3
    case cancelled = 4
    /// A message does not say where it came from.
    case failedWithoutSource = 5
    /// The queue it moves to, or back to, is not there or of another kind.
    case failedWithoutDestination = 6
    /// A message does not fit one request's records with what its move adds.
    case failedTooLarge = 7

    /// Whether it has not ended.
    public var isActive: Bool { self == .running || self == .cancelling }
  }

  /// Names the task.
  public var id: MessageID
  /// The queue that messages are taken from.
  public var source: QueueID
  /// Name of the queue; nil when each message goes back to where it was moved from.
  public var destination: String?
  /// Messages per second at most; nil for as fast as it can.
  public var rate: Int?
  /// Messages that were visible when it started.
  public var toMove: Int
  /// Messages that were moved.
  public var moved = 0
  /// When it started.
  public var startedAt: Timestamp
  /// How far it is.
  public var status = Status.running
}

extension Record {
  /// What happened to a move task. The number stands in the log.
  public enum TaskEvent: UInt32, Hashable, Sendable {
    case started = 1
    case moved = 2
    case changed = 3
  }

  /// Something about a move task of the record's queue.
  public struct Task: Hashable, Sendable {
    /// The task's id.
    public var id: MessageID
    /// What happened.
    public var event: TaskEvent
    /// Of a start: messages per second, 0 for no limit. Of a change: the new status.
    public var number: UInt32
    /// Messages to move, or that were moved.
    public var count: UInt64
    /// Of a start: the destination, or nothing.
    public var destination: String

    /// A record about a task.
    public init(
      id: MessageID, event: TaskEvent, number: UInt32 = 0, count: UInt64 = 0,
      destination: String = ""
    ) {
      self.id = id
      self.event = event
      self.number = number
      self.count = count
      self.destination = destination
    }
  }
}

extension State {
  /// Tasks of a queue that are remembered.
  static let tasksPerQueue = 10

  mutating func apply(_ task: Record.Task, _ q: Int, _ lsn: UInt64) throws(RecordError) {
    let queue = table[q].id
    if task.event == .started {
      tasks[queue.value, default: []].append(
        MoveTask(
          id: task.id, source: queue,
          destination: task.destination.isEmpty ? nil : task.destination,
          rate: task.number == 0 ? nil : Int(task.number), toMove: Int(clamping: task.count),
          startedAt: time))
      let excess = (tasks[queue.value]?.count ?? 0) - Self.tasksPerQueue
      if excess > 0 { tasks[queue.value]?.removeFirst(excess) }
      return
    }
    guard let place = tasks[queue.value]?.firstIndex(where: { $0.id == task.id }) else {
      throw RecordError(description: "LSN \(lsn) is about a move task that is not there")
    }
    if task.event == .moved {
      tasks[queue.value]?[place].moved += Int(clamping: min(task.count, 1 << 32))
    } else {
      guard let status = UInt8(exactly: task.number).flatMap(MoveTask.Status.init) else {
        throw RecordError(description: "LSN \(lsn) gives a move task an unknown status")
      }
      tasks[queue.value]?[place].status = status
    }
  }

  // MARK: Looking

  /// Tasks of a queue that are remembered, the newest first.
  public func moveTasks(of id: QueueID) -> [MoveTask] { (tasks[id.value] ?? []).reversed() }

  /// Tasks that are not over, one per queue at most.
  public var activeTasks: [MoveTask] {
    if tasks.isEmpty { return [] }
    return tasks.sorted { $0.key < $1.key }.compactMap { $0.value.last }.filter(\.status.isActive)
  }

  // MARK: Decide

  /// The record that starts a task; `rate` in messages per second, nil for any.
  public func decideStartMove(
    _ id: QueueID, to destination: QueueID?, rate: Int?, taskID: MessageID
  ) throws(Refusal) -> Entry {
    guard let q = places[id.value] else { throw .queueNotFound }
    var name = ""
    if let destination {
      guard let t = places[destination.value] else { throw .queueNotFound }
      guard t != q, table[t].settings.isFIFO == table[q].settings.isFIFO else {
        throw .moveIsImpossible
      }
      name = table[t].name
    }
    guard tasks[id.value]?.last?.status.isActive != true else { throw .moveIsRunning }
    return task(
      id,
      .init(
        id: taskID, event: .started, number: UInt32(clamping: rate ?? 0),
        count: UInt64(table[q].counts.visible), destination: name))
  }

  /// The record that tells a task to stop.
  public func decideCancelMove(_ id: QueueID, _ taskID: MessageID) throws(Refusal) -> Entry {
    guard places[id.value] != nil else { throw .queueNotFound }
    guard let task = tasks[id.value]?.first(where: { $0.id == taskID }) else { throw .taskNotFound }
    guard task.status == .running else { throw .taskIsOver }
    return decideChange(task, .cancelling)
  }

  /// The record that ends a task, or tells it to end.
  public func decideChange(_ task: MoveTask, _ status: MoveTask.Status) -> Entry {
    self.task(task.source, .init(id: task.id, event: .changed, number: UInt32(status.rawValue)))
  }

  /// The record that counts messages as moved.
  public func decideMoved(_ task: MoveTask, _ count: Int) -> Entry {
    self.task(task.source, .init(id: task.id, event: .moved, count: UInt64(count)))
  }

  private func task(_ id: QueueID, _ task: Record.Task) -> Entry {
    Entry(queue: id, time: time, record: .task(task))
  }

  /// Where a message of a task goes; or how the task ends because of it.
  public enum Destination: Sendable {
    case queue(QueueID)
    case failure(MoveTask.Status)
  }

  /// Where a task moves a message.
  public func destination(of sight: Sight, _ task: MoveTask) -> Destination {
    guard let name = task.destination ?? sight.origin?.queue else {
      return .failure(.failedWithoutSource)
    }
    guard let id = names[name], let t = places[id.value], let q = places[task.source.value], t != q,
      table[t].settings.isFIFO == table[q].settings.isFIFO
    else { return .failure(.failedWithoutDestination) }
    return .queue(id)
  }

  /// The record that sends a visible message of another queue anew.
  public func decideMove(
    _ sight: Sight, from id: QueueID, to target: QueueID, messageID: MessageID, group: TextHash?
  ) -> Entry? {
    guard let q = places[id.value], let t = places[target.value], t != q,
      table[t].settings.isFIFO == table[q].settings.isFIFO
    else { return nil }
    let slot = sight.resident.slot
    var priority: UInt8 = 0
    if sight.parked == nil {
      guard owner(of: sight.resident) == id, slab[slot].state.isVisible else { return nil }
      if slab[slot].state.hasActivity { priority = activities[Int(slab[slot].link)].priority }
    }
    let isFIFO = table[t].settings.isFIFO
    guard !isFIFO || group != nil else { return nil }
    let group = isFIFO || table[t].settings.isFair && priority == 0 ? group : nil
    return Entry(
      queue: target, time: time,
      record: .sent(
        .init(
          id: messageID, visibleAt: nil, isParked: group == nil && priority == 0 && parksNext(t),
          group: group, priority: priority)))
  }

  /// The record that takes a message out of its queue that was sighted there; nil when it is gone,
  /// or in memory by now and was not then.
  public func decideRemove(_ sight: Sight, from id: QueueID) -> Entry? {
    let resident = sight.resident
    guard let parked = sight.parked else {
      guard let q = places[id.value], isLive(q, slot: resident.slot, message: resident.message)
      else { return nil }
      return Entry(
        queue: id, time: time, record: .deleted(message: resident.message, slot: resident.slot))
    }
    return decideExcise(id, in: UInt32(truncatingIfNeeded: resident.position >> 32), parked)
  }

  /// Whether others of its group come before a message of a FIFO queue.
  public func isOvertaken(_ resident: Resident) -> Bool {
    guard let group = group(of: resident.slot), !groups[Int(group)].isTenant else { return false }
    return groups[Int(group)].messages.head != resident.slot
  }
}
