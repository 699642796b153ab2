// SPDX-License-Identifier: Apache-2.0
public import Penstock

/// What a queue store must do, as plainly as it can be said: arrays, no index, no log, no disk.
/// Tests run it beside a store and compare; it shares no code with one.
///
/// Rules
/// - R1: a receive takes visible messages, those that came first to the queue first, and hides each
///   for the timeout.
/// - R2: a message is visible from its send, or from the end of its delay, and again from the end
///   of each lease; a timeout of zero leaves it visible.
/// - R3: a change of visibility moves the end of the newest lease to so long from now, also when
///   the lease has ended; it may not pass the total limit, counted from the newest receive.
/// - R4: a delete takes the message in whatever state it is; deleting what is gone does nothing.
/// - R5: a message expires at its send, rounded up to a whole second, plus its queue's present
///   retention, in whatever state it is. What has expired does not come back if that grows.
/// - R6: a purge takes all messages, in whatever state; deleting a queue takes the queue too.
/// - R7: in a FIFO queue a receive takes from each group the longest run of visible messages from
///   its head, or the beginning of it. Which group comes first is not said here.
/// - R8: in a FIFO queue deletes and changes of visibility need the newest lease, which must not
///   have ended. Delays that are the queue's follow its setting.
/// - R9: in a FIFO queue a send whose deduplication id was used within the window, counted from the
///   first such send, sends nothing and is answered with that one. A purge forgets the ids.
/// - R10: a message that was received as often as its queue allows is moved by the receive that
///   would take it once more to the queue of the name set for dead letters, if there is one of the
///   same kind. There it comes last, keeps its group and its counts, and is visible; in a FIFO
///   queue it is as old as the move, else as its send.
/// - R11: what happens together happens at one time, all of it or nothing; deletes and changes of
///   leases in it need the newest lease in every queue, which must not have ended.
/// - R12: a standard queue's message with a priority comes before one that was sent, in whole
///   seconds rounded up, less than so many of the queue's steps before it.
/// - R13: a send fails when the queue holds as many messages as it may, in whatever state; a
///   receive takes no more than may be leased beside those that are.
/// - R14: in a fair queue the order of R1 holds for the messages of each group, and for those
///   without one. Whose turn it is among them is not said here.
///
/// Messages go by numbers that the caller chooses; they grow from send to send. Time is in
/// milliseconds and moves only when told.
public struct Oracle: Sendable {
  /// A message that was sent and is not gone.
  public struct Message: Sendable, Hashable {
    /// Its number, as given to `send`.
    public let number: UInt64
    /// Its group in a FIFO or a fair queue; empty for none.
    public fileprivate(set) var group: String
    /// See R12.
    public let priority: Int
    /// When it was sent, in milliseconds; in a FIFO queue when it was moved there, if it was.
    public fileprivate(set) var sentAt: Int64
    /// Until when it is or was hidden, by its delay or its newest lease; nil if it never was.
    public fileprivate(set) var hiddenUntil: Int64?
    /// How often it was received.
    public fileprivate(set) var receiveCount = 0
    /// When it was received first; nil if it never was.
    public fileprivate(set) var firstReceivedAt: Int64?
    /// When it was received last; nil if it never was.
    public fileprivate(set) var lastReceivedAt: Int64?
    /// Names its newest lease; 0 if it never was received.
    public fileprivate(set) var lease: UInt64 = 0
    /// When it was moved to the queue that it is in; nil if it was sent there.
    public fileprivate(set) var movedAt: Int64?
    fileprivate var hasOwnDelay = false
  }

  /// What becomes of a delete, or of a change of visibility.
  public enum Change: Sendable, Hashable {
    /// It is done.
    case done
    /// The message is gone, or was never received.
    case notFound
    /// The lease would pass the total limit.
    case limitExceeded
    /// The lease has ended, or another one followed it.
    case leaseLost
  }

  private struct Model: Sendable {
    var name: String
    var settings: QueueSettings
    /// In the order in which they came.
    var messages: [Message] = []
    /// Sends that are remembered.
    var repeatable: [(id: String, number: UInt64, until: Int64)] = []
  }

  private var queues: [QueueID: Model] = [:]
  private var leases: UInt64 = 0

  /// The present, in milliseconds.
  public private(set) var now: Int64

  /// A store without queues at a time.
  public init(at now: Int64) { self.now = now }

  /// Lets time go on to `time`; never back.
  public mutating func advance(to time: Int64) {
    now = max(now, time)
    expire()
  }

  /// Does several things at one time: all, or nothing when `steps` answers false.
  ///
  /// - Returns: whether they were done.
  @discardableResult
  public mutating func together(_ steps: (inout Oracle) -> Bool) -> Bool {
    var changed = self
    guard steps(&changed) else { return false }
    self = changed
    return true
  }

  // MARK: Queues

  /// Adds a queue without messages.
  public mutating func createQueue(
    _ id: QueueID, _ settings: QueueSettings, named name: String = ""
  ) { queues[id] = Model(name: name, settings: settings) }

  /// Gives a queue other settings.
  public mutating func changeQueue(_ id: QueueID, _ settings: QueueSettings) {
    guard var queue = queues[id] else { return }
    let delays = settings.isFIFO && settings.delay != queue.settings.delay
    for (index, message) in queue.messages.enumerated()
    where delays && message.receiveCount == 0 && !message.hasOwnDelay && !isVisible(message) {
      queue.messages[index].hiddenUntil = message.sentAt + Self.milliseconds(settings.delay)
    }
    queue.settings = settings
    queues[id] = queue
    expire()
  }

  /// Takes a queue away with its messages.
  public mutating func deleteQueue(_ id: QueueID) { queues[id] = nil }

  /// Takes all messages of a queue.
  public mutating func purgeQueue(_ id: QueueID) {
    queues[id]?.messages = []
    queues[id]?.repeatable = []
  }

  /// The settings of a queue; nil when there is no such queue.
  public func settings(_ id: QueueID) -> QueueSettings? { queues[id]?.settings }

  /// Messages of a queue by state; nil when there is no such queue.
  public func counts(_ id: QueueID) -> QueueCounts? {
    guard let queue = queues[id] else { return nil }
    var counts = QueueCounts()
    for message in queue.messages {
      if isVisible(message) {
        counts.visible += 1
      } else if message.receiveCount > 0 {
        counts.leased += 1
      } else {
        counts.delayed += 1
      }
    }
    return counts
  }

  /// What is in a queue, in the order in which it came; empty when there is no such queue.
  public func messages(_ id: QueueID) -> [Message] { queues[id]?.messages ?? [] }

  /// Whether a receive could take the message now, if nothing in its group is before it.
  public func isVisible(_ message: Message) -> Bool { (message.hiddenUntil ?? now) <= now }

  /// The queue that takes messages of another which were received too often; nil if there is none.
  public func deadLetterQueue(of id: QueueID) -> QueueID? {
    guard let settings = queues[id]?.settings, settings.maximumReceives > 0,
      !settings.deadLetterQueue.isEmpty
    else { return nil }
    return queues.first {
      $0.value.name == settings.deadLetterQueue && $0.value.settings.isFIFO == settings.isFIFO
    }?.key
  }

  /// Whether the next receive moves the message to the dead letters in place of taking it.
  public func isExhausted(_ message: Message, in id: QueueID) -> Bool {
    guard deadLetterQueue(of: id) != nil, let queue = queues[id] else { return false }
    return message.receiveCount >= queue.settings.maximumReceives
  }

  // MARK: Sending

  /// Sends a message; `delay` of nil takes the queue's.
  ///
  /// - Returns: its number, or that of the message which it repeats; nil when there is no room.
  @discardableResult
  public mutating func send(
    _ number: UInt64, to id: QueueID, delay: Duration? = nil, group: String = "",
    deduplication: String? = nil, priority: Int = 0
  ) -> UInt64? {
    guard let queue = queues[id] else { return nil }
    if let deduplication, let first = original(of: deduplication, group: group, in: id) {
      return first
    }
    let most = queue.settings.maximumMessages
    if most > 0, queue.messages.count >= most { return nil }
    let isGrouped = queue.settings.isFIFO || queue.settings.isFair && priority == 0
    var message = Message(
      number: number, group: isGrouped ? group : "", priority: priority, sentAt: now)
    message.hasOwnDelay = delay != nil
    let delay = Self.milliseconds(delay ?? queue.settings.delay)
    if delay > 0 { message.hiddenUntil = now + delay }
    queues[id]?.messages.append(message)
    if let deduplication, queue.settings.isFIFO {
      let until = now + Self.milliseconds(queue.settings.deduplicationWindow)
      let key = key(deduplication, group, queue)
      queues[id]?.repeatable.append((key, number, until))
    }
    return number
  }

  /// The message that a send with this deduplication id would repeat; nil when it is a new one.
  public func original(of deduplication: String, group: String, in id: QueueID) -> UInt64? {
    guard let queue = queues[id] else { return nil }
    let key = key(deduplication, group, queue)
    return queue.repeatable.last { $0.id == key && $0.until > now }?.number
  }

  private func key(_ deduplication: String, _ group: String, _ queue: Model) -> String {
    queue.settings.deduplicatesByGroup
      ? "\(group.utf8.count) \(group) \(deduplication)" : deduplication
  }

  // MARK: Receiving

  /// Receives up to `limit` messages; `timeout` of nil takes the queue's.
  public mutating func receive(
    from id: QueueID, limit: Int, timeout: Duration? = nil
  ) -> [Message] {
    guard let settings = queues[id]?.settings, let counts = counts(id) else { return [] }
    var limit = limit
    if settings.maximumLeased > 0 { limit = min(limit, settings.maximumLeased - counts.leased) }
    var done: [UInt64] = []
    var taken: [Message] = []
    while taken.count < limit, let next = next(in: id, after: done).first {
      done.append(next.number)
      if isExhausted(next, in: id) {
        move(next.number, from: id)
      } else {
        leases += 1
        taken += take(next.number, from: id, timeout, leases)
      }
    }
    return taken
  }

  /// The messages of which a receive that has dealt with `done` takes or moves one next: one of
  /// each group that can deliver, those with the oldest first.
  public func next(in id: QueueID, after done: [UInt64] = []) -> [Message] {
    let all = messages(id).filter { !done.contains($0.number) }
    if queues[id]?.settings.isFIFO ?? false {
      let heads = all.filter { head in all.first { $0.group == head.group } == head }
      return heads.filter(isVisible)
    }
    let visible = all.filter { $0.priority == 0 && isVisible($0) }
    let plain = visible.filter { head in visible.first { $0.group == head.group } == head }
    let urgent = all.filter { $0.priority > 0 && isVisible($0) }
      .min { urgency($0, id) < urgency($1, id) }
    guard let urgent else { return plain }
    let before = plain.filter { !(urgency(urgent, id) < urgency($0, id)) }
    return before.count < max(1, plain.count) ? before + [urgent] : before
  }

  /// The second as which a message counts as sent, then its place.
  private func urgency(_ message: Message, _ id: QueueID) -> (Int64, Int) {
    let step = Self.milliseconds(queues[id]?.settings.priorityStep ?? .zero) / 1000
    let second = (message.sentAt + 999) / 1000 - step * Int64(message.priority)
    return (max(0, second), place(message.number, in: id) ?? 0)
  }

  /// Does what a store did in one receive: took messages, each with the name of its lease, and
  /// moved others to the dead letters.
  ///
  /// - Returns: what was taken; nil when no receive may do this.
  public mutating func follow(
    taken: [(number: UInt64, lease: UInt64)], moved: [UInt64], from id: QueueID,
    timeout: Duration
  ) -> [Message]? {
    var (taken, moved) = (taken[...], moved[...])
    var (done, given): ([UInt64], [Message]) = ([], [])
    while !taken.isEmpty || !moved.isEmpty {
      let next = next(in: id, after: done)
      let isDead = next.contains { $0.number == moved.first && isExhausted($0, in: id) }
      if isDead, let number = moved.popFirst() {
        move(number, from: id)
        done.append(number)
      } else if let message = next.first(where: { $0.number == taken.first?.number }),
        !isExhausted(message, in: id), let first = taken.popFirst()
      {
        given += take(first.number, from: id, timeout, first.lease)
        done.append(first.number)
      } else {
        return nil
      }
    }
    return given
  }

  private mutating func take(
    _ number: UInt64, from id: QueueID, _ timeout: Duration?, _ lease: UInt64
  ) -> [Message] {
    guard let index = place(number, in: id), let queue = queues[id] else { return [] }
    var message = queue.messages[index]
    message.hiddenUntil = now + Self.milliseconds(timeout ?? queue.settings.visibilityTimeout)
    message.receiveCount += 1
    message.firstReceivedAt = message.firstReceivedAt ?? now
    message.lastReceivedAt = now
    message.lease = lease
    queues[id]?.messages[index] = message
    return [message]
  }

  /// Moves a message to its queue's dead letters; false when that cannot be done.
  @discardableResult
  package mutating func move(_ number: UInt64, from id: QueueID) -> Bool {
    guard let index = place(number, in: id), let target = deadLetterQueue(of: id),
      var message = queues[id]?.messages.remove(at: index)
    else { return false }
    message.hiddenUntil = nil
    message.movedAt = now
    if queues[target]?.settings.isFIFO ?? false { message.sentAt = now } else { message.group = "" }
    queues[target]?.messages.append(message)
    expire()
    return true
  }

  /// Takes a message out of its queue, in whatever state.
  public mutating func remove(_ number: UInt64, from id: QueueID) {
    queues[id]?.messages.removeAll { $0.number == number }
  }

  // MARK: Holding

  /// Whether a lease of a message is its newest one and lasts.
  public func isHeld(_ lease: UInt64, of number: UInt64, in id: QueueID) -> Bool {
    guard let index = place(number, in: id) else { return false }
    let message = messages(id)[index]
    return message.receiveCount > 0 && message.lease == lease && !isVisible(message)
  }

  /// Deletes a message.
  ///
  /// - Parameters:
  ///   - lease: the one it is deleted by; nil for the newest.
  ///   - isFenced: whether that must be held, as in a FIFO queue.
  @discardableResult
  public mutating func delete(
    _ number: UInt64, from id: QueueID, lease: UInt64? = nil, isFenced: Bool = false
  ) -> Change {
    guard let index = place(number, in: id), let queue = queues[id] else { return .notFound }
    let lease = lease ?? queue.messages[index].lease
    guard !isFenced && !queue.settings.isFIFO || isHeld(lease, of: number, in: id) else {
      return .leaseLost
    }
    queues[id]?.messages.remove(at: index)
    return .done
  }

  /// Lets the newest lease of a message end after `timeout` from now.
  ///
  /// - Parameters: `lease` and `isFenced` as in `delete`.
  public mutating func changeVisibility(
    _ number: UInt64, of id: QueueID, timeout: Duration, totalLimit: Duration? = nil,
    lease: UInt64? = nil, isFenced: Bool = false
  ) -> Change {
    guard let index = place(number, in: id), let queue = queues[id] else { return .notFound }
    let lease = lease ?? queue.messages[index].lease
    guard !isFenced && !queue.settings.isFIFO || isHeld(lease, of: number, in: id) else {
      return .leaseLost
    }
    guard let received = queue.messages[index].lastReceivedAt else { return .notFound }
    let end = now + Self.milliseconds(timeout)
    if let totalLimit, end > received + Self.milliseconds(totalLimit) { return .limitExceeded }
    queues[id]?.messages[index].hiddenUntil = end
    return .done
  }

  private func place(_ number: UInt64, in id: QueueID) -> Int? {
    queues[id]?.messages.firstIndex { $0.number == number }
  }

  private mutating func expire() {
    for (id, queue) in queues {
      let retention = Self.milliseconds(queue.settings.retention)
      queues[id]?.messages.removeAll { ($0.sentAt + 999) / 1000 * 1000 + retention <= now }
    }
  }

  private static func milliseconds(_ duration: Duration) -> Int64 {
    duration.components.seconds * 1000 + duration.components.attoseconds / 1_000_000_000_000_000
  }
}
