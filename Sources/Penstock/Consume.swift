// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore

/// How long a message is hidden after its handler threw; called with the lease and the error.
public typealias RetryDelay = @Sendable (Lease, any Error) -> Duration

extension Queue {
  /// Handles messages as they come, several at a time, until the task is cancelled or the store is
  /// closed.
  ///
  /// ```swift
  /// try await orders.consume(maxConcurrent: 8) { lease in try await ship(lease.body) }
  /// ```
  ///
  /// - **Returning deletes** the message; throwing gives it back, hidden for as long as
  ///   `retryDelay` says. `lease.delete()` and `lease.release()` are not needed.
  /// - **Leases are kept**: extended when a third of the timeout has passed, for as long as the
  ///   handler runs. It must not block its thread: extensions need one.
  /// - **A lost lease cancels** the handler's task: it ended all the same, or somebody gave back or
  ///   deleted the message. What a cancelled handler had is not deleted, even if it returns.
  /// - **Only what can be handled is received**: no more leases than handlers at any time.
  /// - **Groups of a FIFO queue keep their order**: what one receive brings of a group is handled
  ///   one after the other; a failure gives back that message and those of its group behind it.
  /// - **Draining**: cancellation and closing stop the receiving. Handlers at work go on for
  ///   `drainLimit` with their leases kept; then they are cancelled and their messages given back.
  ///   Cancel and await before closing: a closed store takes no deletes, so that what its handlers
  ///   finish comes again.
  ///
  /// Messages that cannot be read are passed over, and a full disk is waited for.
  ///
  /// - Parameters:
  ///   - maxConcurrent: at most this many handlers at a time.
  ///   - visibilityTimeout: how long a lease lasts without extension; nil takes what the queue's is
  ///     when this is called.
  ///   - drainLimit: nil for as long as handlers want. One that ignores its cancellation is waited
  ///     for.
  ///   - retryDelay: how long to hide what a handler failed at.
  ///   - handler: does the work of one message.
  /// - Durability: a delete is durable before its handler's place is free.
  /// - Throws: when drained, what ended the loop: an error of receiving or of deleting, such as
  ///   `.queueNotFound` or `.storeFailed`. At once `.invalidArgument`, for a limit or a timeout
  ///   that is too small. Not for cancellation and closing, after which it returns.
  public func consume(
    maxConcurrent: Int = 16, visibilityTimeout: Duration? = nil,
    drainLimit: Duration? = .seconds(30), retryDelay: @escaping RetryDelay = Queue.backoff,
    _ handler: @escaping @Sendable (Lease) async throws -> Void
  ) async throws(PenstockError) {
    let consumer = try Consumer(
      self, maxConcurrent, visibilityTimeout, drainLimit, retryDelay
    ) { lease, _ in try await handler(lease) }
    try await consumer.run()
  }

  /// At once after the first attempt, then 1, 2, 4 and more seconds, up to five minutes.
  public static let backoff: RetryDelay = { lease, _ in
    lease.attempt < 2 ? .zero : .seconds(min(300, 1 << min(lease.attempt - 2, 9)))
  }
}

extension Lease {
  /// How often the message was received, this time included. A message that was received and given
  /// back behind another of its group counts that too, and power loss may take some back.
  public var attempt: Int { message.receiveCount }
  /// Names the lease, in deletes by handle and to clients outside of this process.
  public var handle: LeaseHandle { message.handle }
  /// When the message becomes visible to others, by `Store.now`, unless the lease is extended; the
  /// consumer loop does that before.
  public var deadline: Timestamp { message.leaseEndsAt }
}
