// SPDX-License-Identifier: Apache-2.0
public import PenstockCore

/// A queue of an open store.
///
/// Names one incarnation: after the queue was deleted every operation fails with `.queueNotFound`,
/// also when another was created under its name.
public struct Queue: Sendable {
  /// The store that it is in.
  public let store: Store
  /// Names this incarnation.
  public let id: QueueID
  /// Its name.
  public let name: String

  /// Sends one message.
  ///
  /// - Parameters:
  ///   - body: any bytes, as many as the queue's `maximumMessageBytes` lets pass.
  ///   - attributes: travel with it, and count as bytes of it.
  ///   - delay: how long to hide it at first; nil takes the queue's. In a FIFO queue the message
  ///     holds its group meanwhile.
  ///   - group: a FIFO queue delivers the messages of a group in their order, and one lease at a
  ///     time; it needs one.
  ///   - deduplicationID: in a FIFO queue a send that repeats one of the last five minutes (see
  ///     `QueueSettings.deduplicationWindow`) sends nothing, and answers with the id of that.
  /// - Durability: on return the message is as durable as `Store.durability` says.
  /// - Returns: the message's id.
  @discardableResult
  public func send(
    _ body: [UInt8], attributes: [MessageAttribute] = [], delay: Duration? = nil,
    group: String? = nil, deduplicationID: String? = nil
  ) async throws(PenstockError) -> MessageID {
    let content = MessageContent(
      body: body, attributes: attributes, groupID: group, deduplicationID: deduplicationID)
    let entry = SendEntry(content, delay: delay)
    let results = try await awaited { store.send([entry], to: id, $0) }
    guard let first = results.first else {
      throw PenstockError(.invalidArgument, "nothing was sent")
    }
    return try first.get().id
  }

  /// Sends one message with this text, as UTF-8, as its body.
  @discardableResult
  public func send(
    _ text: String, attributes: [MessageAttribute] = [], delay: Duration? = nil,
    group: String? = nil, deduplicationID: String? = nil
  ) async throws(PenstockError) -> MessageID {
    try await send(
      Array(text.utf8), attributes: attributes, delay: delay, group: group,
      deduplicationID: deduplicationID)
  }

  /// Sends messages as one group: after a crash all of those that succeeded are there, or none.
  public func send(
    batch entries: [SendEntry]
  ) async throws(PenstockError) -> [Result<SendReceipt, PenstockError>] {
    try await awaited { store.send(entries, to: id, $0) }
  }

  /// Receives messages, oldest first, and hides them from others until their leases end.
  ///
  /// - Parameters:
  ///   - maximum: at most this many; fewer when fewer are there.
  ///   - wait: how long to wait for the first one; nil takes the queue's.
  ///   - visibilityTimeout: how long to hide them; nil takes the queue's.
  /// - Returns: nothing when the wait ended or the task was cancelled before a message was there.
  public func receive(
    maximum: Int = 1, wait: Duration? = nil, visibilityTimeout: Duration? = nil
  ) async throws(PenstockError) -> [Lease] {
    let request = ReceiveRequest(
      maximumMessages: maximum, wait: wait, visibilityTimeout: visibilityTimeout)
    let ticket = PendingReceive()
    let result = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        ticket.started(
          store.receive(request, from: id) { continuation.resume(returning: $0) }, in: store)
      }
    } onCancel: {
      ticket.cancel(in: store)
    }
    return try result.get().map { Lease(queue: self, message: $0) }
  }

  /// Messages as they come, for as long as the loop runs: a long poll after the other.
  ///
  /// The sequence ends when the task is cancelled or the store is closed, passes over messages that
  /// cannot be read, and throws on other errors. Each element must be deleted by its handler; one
  /// that is not comes back when its lease ends.
  public func leases(visibilityTimeout: Duration? = nil) -> Leases {
    Leases(queue: self, visibilityTimeout: visibilityTimeout)
  }

  /// Deletes messages by their handles. One that is gone already is a success.
  public func delete(
    _ handles: [LeaseHandle]
  ) async throws(PenstockError) -> [Result<Void, PenstockError>] {
    try await awaited { store.delete(handles, from: id, $0) }
  }

  /// Deletes all messages that were sent before.
  public func purge() async throws(PenstockError) { try await awaited { store.purgeQueue(id, $0) } }

  /// Changes those settings that are not nil.
  @discardableResult
  public func change(
    _ settings: QueueSettingsChange
  ) async throws(PenstockError) -> QueueDescription {
    try await awaited { store.changeQueue(id, settings, $0) }
  }

  /// Settings, times and exact counts.
  public func describe() async throws(PenstockError) -> QueueDescription {
    try await awaited { store.describe(id, $0) }
  }

  /// Deletes the queue with all its messages.
  public func remove() async throws(PenstockError) {
    try await awaited { store.deleteQueue(id, $0) }
  }
}

extension Store {
  /// The queue of this name; made with these settings if there is none.
  ///
  /// - Throws: `.queueExists` when there is one with other settings.
  public func queue(
    _ name: String, _ settings: QueueSettings = QueueSettings()
  ) async throws(PenstockError) -> Queue {
    let description = try await awaited {
      self.createQueue(name, QueueSettingsChange(settings), $0)
    }
    return Queue(store: self, id: description.id, name: name)
  }

  /// The queue of this name as it is; nil if there is none.
  public func existingQueue(_ name: String) -> Queue? {
    lookup(name).map { Queue(store: self, id: $0.id, name: name) }
  }
}

/// A received message, hidden from others until `message.leaseEndsAt`.
public struct Lease: Sendable {
  /// The queue that it was received from.
  public let queue: Queue
  /// What was received.
  public let message: ReceivedMessage

  /// The message's bytes.
  public var body: [UInt8] { message.content.body }
  /// The body read as UTF-8; ill-formed parts are replaced.
  public var text: String { String(decoding: message.content.body, as: UTF8.self) }

  /// Deletes the message: its work is done. Durable on return.
  public func delete() async throws(PenstockError) {
    for result in try await queue.delete([message.handle]) { try result.get() }
  }

  /// Lets the lease end after `timeout` from now, not added to what is left.
  public func extend(to timeout: Duration) async throws(PenstockError) {
    let change = VisibilityChange(handle: message.handle, timeout: timeout)
    let results = try await awaited { queue.store.changeVisibility([change], of: queue.id, $0) }
    for result in results { try result.get() }
  }

  /// Moves the message to its queue's dead letters, for work that is known to fail.
  ///
  /// - Throws: `.leaseLost` when the lease is not held any more; `.deadLetterQueueNotFound`.
  public func reject() async throws(PenstockError) {
    for result in try await awaited({ queue.store.reject([message.handle], $0) }) {
      try result.get()
    }
  }

  /// Gives the message back: it is visible again at once.
  public func release() async throws(PenstockError) { try await extend(to: .zero) }
}

/// The messages of a queue, one after the other.
public struct Leases: AsyncSequence, Sendable {
  let queue: Queue
  let visibilityTimeout: Duration?

  public func makeAsyncIterator() -> Iterator {
    Iterator(queue: queue, visibilityTimeout: visibilityTimeout)
  }

  public struct Iterator: AsyncIteratorProtocol {
    let queue: Queue
    let visibilityTimeout: Duration?

    public mutating func next() async throws(PenstockError) -> Lease? {
      while !Task.isCancelled {
        do throws(PenstockError) {
          let leases = try await queue.receive(
            wait: .seconds(20), visibilityTimeout: visibilityTimeout)
          if let lease = leases.first { return lease }
        } catch {
          if error.code == .closed { return nil }
          // It was logged, and set aside if it is damaged: those behind it must not wait for it.
          if error.concernsOneMessage { continue }
          throw error
        }
        if queue.store.isClosed { return nil }
      }
      return nil
    }
  }
}
