// SPDX-License-Identifier: Apache-2.0

/// What a sender gets back once its message is durable.
public struct SendReceipt: Sendable, Hashable {
  /// The message's id.
  public var id: MessageID
  /// LSN of the send: grows with every message of the store. Also the message's sequence number in
  /// its group.
  public var lsn: UInt64
  /// The send repeats an earlier one, whose id and LSN these are; nothing was sent.
  public var isDuplicate = false
}

/// What to receive.
public struct ReceiveRequest: Sendable {
  /// At most this many messages, at least 1.
  public var maximumMessages: Int
  /// How long to wait for the first one; nil takes the queue's `receiveWait`.
  public var wait: Duration?
  /// How long to hide what is received; nil takes the queue's `visibilityTimeout`. Zero leaves it
  /// visible, though it is delivered and counted.
  public var visibilityTimeout: Duration?
  /// In a FIFO queue: a receive with the id of one of the last five minutes gets the same messages
  /// with the same handles, and their timeouts anew, for who lost the answer. It fails with
  /// `.attemptOver` when something was done to one of them since, or its lease has ended.
  public var attemptID: String?

  /// A receive; nothing is checked here.
  public init(
    maximumMessages: Int = 1, wait: Duration? = nil, visibilityTimeout: Duration? = nil,
    attemptID: String? = nil
  ) {
    self.attemptID = attemptID
    self.maximumMessages = maximumMessages
    self.wait = wait
    self.visibilityTimeout = visibilityTimeout
  }
}

/// A message as a receiver sees it.
public struct ReceivedMessage: Sendable {
  /// Equal for all deliveries of the message.
  public var id: MessageID
  /// Names this lease of it.
  public var handle: LeaseHandle
  /// What was sent.
  public var content: MessageContent
  /// LSN of the send; ascends in a group of a FIFO queue.
  public var sequenceNumber: UInt64 { handle.message }
  /// When it was sent, by the store's time; in a FIFO queue when it was last moved.
  public var sentAt: Timestamp
  /// When it was received for the first time, by the store's time.
  public var firstReceivedAt: Timestamp
  /// How often it was received, this time included.
  public var receiveCount: Int
  /// When it becomes visible again.
  public var leaseEndsAt: Timestamp
  /// The queue that it was moved from, and why; nil when it was sent to the one it is in.
  public var origin: MessageOrigin?
  /// Grows with every lease of the message, whoever has it, also over restarts: what a store of
  /// results compares, so that who lost a lease cannot overwrite what its successor wrote.
  public var fencingToken: UInt64 { handle.token }
}

/// Names a receive that may be waiting, to cancel it.
public struct ReceiveTicket: Sendable, Hashable {
  package var value: UInt64
  package init(value: UInt64) { self.value = value }
}

/// A new end for a lease: `timeout` from now, not added to what is left. Zero makes the message
/// visible at once.
public struct VisibilityChange: Sendable {
  /// The lease.
  public var handle: LeaseHandle
  /// From now on.
  public var timeout: Duration
  /// A change; nothing is checked here.
  public init(handle: LeaseHandle, timeout: Duration) {
    self.handle = handle
    self.timeout = timeout
  }
}
