// SPDX-License-Identifier: Apache-2.0
public import Penstock

/// What a queue store must do, as plainly as it can be said: arrays, no index, no log, no disk.
/// Tests run it beside a store and compare; it shares no code with one.
///
/// Rules
/// - R1: a receive takes visible messages, oldest send first, and hides each for the timeout.
/// - R2: a message is visible from its send, or from the end of its delay, and again from the end
///   of each lease; a timeout of zero leaves it visible.
/// - R3: a change of visibility moves the end of the newest lease to so long from now, also when
///   the lease has ended; it may not pass the total limit, counted from the newest receive.
/// - R4: a delete takes the message in whatever state it is; deleting what is gone does nothing.
/// - R5: a message expires at its send, rounded up to a whole second, plus its queue's present
///   retention, in whatever state it is. What has expired does not come back if that grows.
/// - R6: a purge takes all messages, in whatever state; deleting a queue takes the queue too.
///
/// Messages go by numbers that the caller chooses; they grow from send to send. Time is in
/// milliseconds and moves only when told.
public struct Oracle: Sendable {
  /// A message that was sent and is not gone.
  public struct Message: Sendable, Hashable {
    /// Its number, as given to `send`.
    public let number: UInt64
    /// When it was sent, in milliseconds.
    public let sentAt: Int64
    /// Until when it is or was hidden, by its delay or its newest lease; nil if it never was.
    public fileprivate(set) var hiddenUntil: Int64?
    /// How often it was received.
    public fileprivate(set) var receiveCount = 0
    /// When it was received first; nil if it never was.
    public fileprivate(set) var firstReceivedAt: Int64?
    /// When it was received last; nil if it never was.
    public fileprivate(set) var lastReceivedAt: Int64?
  }

  /// What becomes of a change of visibility.
  public enum Change: Sendable, Hashable {
    /// It is done.
    case done
    /// The message is gone, or was never received.
    case notFound
    /// The lease would pass the total limit.
    case limitExceeded
  }

  private struct Model: Sendable {
    var settings: QueueSettings
    /// In the order of their sends.
    var messages: [Message] = []
  }

  private var queues: [QueueID: Model] = [:]

  /// The present, in milliseconds.
  public private(set) var now: Int64

  /// A store without queues at a time.
  public init(at now: Int64) { self.now = now }

  /// Lets time go on to `time`; never back.
  public mutating func advance(to time: Int64) {
    now = max(now, time)
    expire()
  }

  // MARK: Queues

  /// Adds a queue without messages.
  public mutating func createQueue(_ id: QueueID, _ settings: QueueSettings) {
    queues[id] = Model(settings: settings)
  }

  /// Gives a queue other settings.
  public mutating func changeQueue(_ id: QueueID, _ settings: QueueSettings) {
    queues[id]?.settings = settings
    expire()
  }

  /// Takes a queue away with its messages.
  public mutating func deleteQueue(_ id: QueueID) { queues[id] = nil }

  /// Takes all messages of a queue.
  public mutating func purgeQueue(_ id: QueueID) { queues[id]?.messages = [] }

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

  /// What is in a queue, in the order of the sends; empty when there is no such queue.
  public func messages(_ id: QueueID) -> [Message] { queues[id]?.messages ?? [] }

  /// Whether a receive could take the message now.
  public func isVisible(_ message: Message) -> Bool { (message.hiddenUntil ?? now) <= now }

  // MARK: Messages

  /// Sends a message; `delay` of nil takes the queue's.
  public mutating func send(_ number: UInt64, to id: QueueID, delay: Duration? = nil) {
    guard let queue = queues[id] else { return }
    var message = Message(number: number, sentAt: now)
    let delay = Self.milliseconds(delay ?? queue.settings.delay)
    if delay > 0 { message.hiddenUntil = now + delay }
    queues[id]?.messages.append(message)
  }

  /// Receives up to `limit` messages; `timeout` of nil takes the queue's.
  public mutating func receive(
    from id: QueueID, limit: Int, timeout: Duration? = nil
  ) -> [Message] {
    guard var queue = queues[id] else { return [] }
    var taken: [Message] = []
    for index in queue.messages.indices where taken.count < limit {
      guard isVisible(queue.messages[index]) else { continue }
      take(&queue, index, timeout)
      taken.append(queue.messages[index])
    }
    queues[id] = queue
    return taken
  }

  /// Receives these messages, those that are visible, in their order: what a store took that may
  /// take fewer than there are.
  package mutating func receive(
    _ numbers: [UInt64], from id: QueueID, timeout: Duration
  ) -> [Message] {
    guard var queue = queues[id] else { return [] }
    var taken: [Message] = []
    for number in numbers {
      guard let index = place(number, in: id), isVisible(queue.messages[index]) else { continue }
      take(&queue, index, timeout)
      taken.append(queue.messages[index])
    }
    queues[id] = queue
    return taken
  }

  private func take(_ queue: inout Model, _ index: Int, _ timeout: Duration?) {
    var message = queue.messages[index]
    message.hiddenUntil = now + Self.milliseconds(timeout ?? queue.settings.visibilityTimeout)
    message.receiveCount += 1
    message.firstReceivedAt = message.firstReceivedAt ?? now
    message.lastReceivedAt = now
    queue.messages[index] = message
  }

  /// Deletes a message; false when it is gone already.
  @discardableResult
  public mutating func delete(_ number: UInt64, from id: QueueID) -> Bool {
    guard let index = place(number, in: id) else { return false }
    queues[id]?.messages.remove(at: index)
    return true
  }

  /// Lets the newest lease of a message end after `timeout` from now.
  public mutating func changeVisibility(
    _ number: UInt64, of id: QueueID, timeout: Duration, totalLimit: Duration? = nil
  ) -> Change {
    guard let index = place(number, in: id), let queue = queues[id],
      let received = queue.messages[index].lastReceivedAt
    else { return .notFound }
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
