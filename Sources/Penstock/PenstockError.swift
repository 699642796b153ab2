// SPDX-License-Identifier: Apache-2.0
public import PenstockCore

/// The one error of the public API. `code` says what happened; `family` what a caller can rely on.
public struct PenstockError: Error, Sendable, CustomStringConvertible {
  /// What a caller may conclude from an error.
  public enum Family: Sendable, Hashable {
    /// Nothing happened: the store is as it was.
    case rejected
    /// The operation may or may not be durable: the store failed before it could say. Reopening
    /// tells.
    case outcomeUnknown
    /// The store has failed or is closed and takes no more writes until it is opened again.
    case storeFailed
  }

  /// What happened. Later versions have more of them.
  public struct Code: Hashable, Sendable, CustomStringConvertible {
    private enum Name: String, Hashable, Sendable {
      case queueNotFound, queueExists, invalidHandle, messageNotFound, leaseLimitExceeded
      case messageTooLarge, invalidArgument, storeFull, storeInUse, storeNotFound, corrupted
      case inputOutput, outcomeUnknown, storeFailed, closed, unreadableMessage
      case queueFull, tooManyLeased, leaseLost, deadLetterQueueNotFound, deadLetterRefused
      case undecodablePayload, attemptOver, moveTaskActive, moveTaskNotFound, moveTaskOver
      case clockJumped, keyNotFound, keyMismatch
    }
    private var name: Name
    private init(_ name: Name) { self.name = name }
    public var description: String { name.rawValue }

    /// No queue has this id or name.
    public static var queueNotFound: Code { Code(.queueNotFound) }
    /// A queue of this name has other settings; `PenstockError.setting` names the first that
    /// differs.
    public static var queueExists: Code { Code(.queueExists) }
    /// The lease handle belongs to no lease of this queue.
    public static var invalidHandle: Code { Code(.invalidHandle) }
    /// The message was deleted, purged or has expired.
    public static var messageNotFound: Code { Code(.messageNotFound) }
    /// The lease would last longer in all than the caller's limit.
    public static var leaseLimitExceeded: Code { Code(.leaseLimitExceeded) }
    /// Larger than the queue allows; `PenstockError.limit` says how much that is, in bytes.
    public static var messageTooLarge: Code { Code(.messageTooLarge) }
    /// Something was asked for that cannot be: the message says what. Nothing happened.
    public static var invalidArgument: Code { Code(.invalidArgument) }
    /// The disk is full or nearly so: sends are refused, receives and deletes go on.
    public static var storeFull: Code { Code(.storeFull) }
    /// Another process, or another `Store` in this one, has the directory open.
    public static var storeInUse: Code { Code(.storeInUse) }
    /// The directory holds something else, or a store of a newer version.
    public static var storeNotFound: Code { Code(.storeNotFound) }
    /// The clock is further ahead than `StoreOptions.maximumClockJump`, and messages would expire.
    public static var clockJumped: Code { Code(.clockJumped) }
    /// Acknowledged data is damaged or missing. Nothing was changed on disk.
    public static var corrupted: Code { Code(.corrupted) }
    /// A system call failed while opening or reading. Nothing was changed on disk.
    public static var inputOutput: Code { Code(.inputOutput) }
    /// The queue holds as much as `PenstockError.setting` of it allows; `limit` says how much.
    public static var queueFull: Code { Code(.queueFull) }
    /// As many messages of the queue are leased as its `maximumLeased` allows.
    public static var tooManyLeased: Code { Code(.tooManyLeased) }
    /// The lease is not held any more: it ended, or the message was received again or is gone.
    public static var leaseLost: Code { Code(.leaseLost) }
    /// The queue has no dead-letter queue, or none of that name exists.
    public static var deadLetterQueueNotFound: Code { Code(.deadLetterQueueNotFound) }
    /// The dead-letter queue's `deadLetterSources` leave the queue out.
    public static var deadLetterRefused: Code { Code(.deadLetterRefused) }
    /// The receive of this id cannot be repeated: its messages are not what they were.
    public static var attemptOver: Code { Code(.attemptOver) }
    /// A queue has one move task at a time.
    public static var moveTaskActive: Code { Code(.moveTaskActive) }
    /// The queue has no such move task, or has forgotten it.
    public static var moveTaskNotFound: Code { Code(.moveTaskNotFound) }
    /// Only a task that is running can be cancelled.
    public static var moveTaskOver: Code { Code(.moveTaskOver) }
    /// The log failed while this was being made durable: it may have happened or not.
    public static var outcomeUnknown: Code { Code(.outcomeUnknown) }
    /// A write or sync has failed, and nothing more is written: reopen the store.
    public static var storeFailed: Code { Code(.storeFailed) }
    /// The store is closed or closing. Nothing happened.
    public static var closed: Code { Code(.closed) }
    /// The message's bytes on disk fail their checksum or cannot be read. It was not delivered.
    public static var unreadableMessage: Code { Code(.unreadableMessage) }
    /// A queue's `encryptionKey`, or the key that a message is sealed with, is not there.
    public static var keyNotFound: Code { Code(.keyNotFound) }
    /// A sealed message cannot be opened: the key of that name is another, or its bytes changed.
    public static var keyMismatch: Code { Code(.keyMismatch) }
    /// The codec of a typed queue cannot read a message's body. The message was not deleted.
    public static var undecodablePayload: Code { Code(.undecodablePayload) }
  }

  /// What happened, for a program.
  public var code: Code
  /// What happened and what to do, for people.
  public var message: String
  /// The limit that was passed, for the codes that say so.
  public var limit: Int?
  /// The setting of the queue that is in the way, for `queueExists` and `queueFull`.
  public var setting: QueueSetting?

  /// An error of this code.
  public init(_ code: Code, _ message: String, limit: Int? = nil, setting: QueueSetting? = nil) {
    self.code = code
    self.message = message
    self.limit = limit
    self.setting = setting
  }

  /// What the caller may conclude.
  public var family: Family {
    switch code {
    case .outcomeUnknown: .outcomeUnknown
    case .storeFailed, .closed: .storeFailed
    default: .rejected
    }
  }

  /// One message cannot be received; those behind it can.
  var concernsOneMessage: Bool { [.unreadableMessage, .keyNotFound, .keyMismatch].contains(code) }

  public var description: String { "\(code): \(message)" }
}
