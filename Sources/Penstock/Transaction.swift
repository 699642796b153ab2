// SPDX-License-Identifier: Apache-2.0
public import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

/// Changes to one or more queues of a store that happen together: after a crash all are there, or
/// none.
public struct Transaction: Sendable {
  enum Step: Sendable {
    case send(SendEntry, QueueID)
    case delete(LeaseHandle)
    case reject(LeaseHandle)
    case extend(LeaseHandle, Duration)
  }
  var steps: [Step] = []
  /// Stores of the queues and leases that were given to it.
  var stores: Set<ObjectIdentifier> = []

  /// A transaction that does nothing yet.
  public init() {}

  /// Sends a message. Its receipt is among the transaction's, in the order of the sends.
  public mutating func send(_ entry: SendEntry, to queue: QueueID) {
    steps.append(.send(entry, queue))
  }

  /// Deletes a leased message. Unlike a plain delete it demands that the lease is still held: who
  /// lost it gets `.leaseLost`, and nothing of the transaction happens. So each message has its
  /// effect once.
  public mutating func delete(_ handle: LeaseHandle) { steps.append(.delete(handle)) }

  /// Moves a leased message to its queue's dead letters.
  public mutating func reject(_ handle: LeaseHandle) { steps.append(.reject(handle)) }

  /// Lets a lease that is still held end after `timeout` from now; zero gives the message back.
  public mutating func extend(_ handle: LeaseHandle, to timeout: Duration) {
    steps.append(.extend(handle, timeout))
  }
}

extension Transaction {
  /// Sends one message.
  ///
  /// - Parameters: as those of `Queue.send`, and a priority as in `SendEntry`.
  public mutating func send(
    _ body: [UInt8], to queue: Queue, attributes: [MessageAttribute] = [],
    delay: Duration? = nil, group: String? = nil, deduplicationID: String? = nil,
    priority: UInt8 = 0
  ) {
    stores.insert(ObjectIdentifier(queue.store))
    let content = MessageContent(
      body: body, attributes: attributes, groupID: group, deduplicationID: deduplicationID)
    send(SendEntry(content, delay: delay, priority: priority), to: queue.id)
  }

  /// As `delete` of its handle.
  public mutating func delete(_ lease: Lease) {
    stores.insert(ObjectIdentifier(lease.queue.store))
    delete(lease.message.handle)
  }
}

extension Store {
  /// Does all of a transaction or nothing.
  ///
  /// Fails with what the first step fails with that cannot be done: `.leaseLost` say, or
  /// `.messageTooLarge`, also when all of it together is more than a segment takes.
  public func commit(
    _ transaction: Transaction, _ completion: @escaping Completion<[SendReceipt]>
  ) {
    guard transaction.stores.allSatisfy({ $0 == ObjectIdentifier(self) }) else {
      let text = "a queue or a lease is of another store"
      return completion(.failure(PenstockError(.invalidArgument, text)))
    }
    engine.commit(transaction.steps, completion)
  }

  /// Does together what `body` asks for.
  ///
  /// - Durability: as `durability` says, on return.
  /// - Returns: receipts of its sends, in order.
  /// - Throws: what `body` throws, or a `PenstockError`; then nothing was changed, unless that is
  ///   of the family `.outcomeUnknown`.
  @discardableResult
  public func transaction(
    _ body: (inout Transaction) throws -> Void
  ) async throws -> [SendReceipt] {
    var transaction = Transaction()
    try body(&transaction)
    let steps = transaction
    return try await awaited { self.commit(steps, $0) }
  }
}

extension Engine {
  func commit(_ steps: [Transaction.Step], _ completion: @escaping Completion<[SendReceipt]>) {
    var (handles, entries) = (Set<UInt64>(), [SendEntry]())
    var (queues, ahead) = ([(QueueID, ahead: Int)](), [QueueID: Int]())
    for step in steps {
      switch step {
      case .send(let entry, let queue):
        entries.append(entry)
        queues.append((queue, ahead[queue, default: 0]))
        ahead[queue, default: 0] += 1
      case .delete(let handle), .reject(let handle), .extend(let handle, _):
        guard handles.insert(handle.message).inserted else {
          return completion(
            .failure(PenstockError(.invalidArgument, "a transaction names a message twice")))
        }
      }
      if case .extend(_, let timeout) = step, timeout < .zero {
        return completion(.failure(PenstockError(.invalidArgument, "a timeout is negative")))
      }
    }
    let sends: Sending
    do throws(PenstockError) {
      let others = handles.count * Self.smallRecordSize
      sends = try prepare(entries, beside: others) { queues[$0] }
    } catch { return completion(.failure(error)) }
    let drains = queues.isEmpty
    submit(drains: drains, completion) { engine, shared, actions in
      func decide(_ step: Transaction.Step, _ sent: inout Int, isAgain: Bool) throws(Refusal)
        -> State.Send?
      {
        switch step {
        case .send:
          defer { sent += 1 }
          return try sends.decide(sent, in: shared.state, checksLimits: !isAgain)
        case .delete(let handle):
          return try shared.state.decideDelete(handle, from: handle.queue, isFenced: true)
            .map { .record($0) }
        case .reject(let handle): return .record(try shared.state.decideReject(handle))
        case .extend(let handle, let timeout):
          return .record(
            try shared.state.decideChangeVisibility(
              handle, of: handle.queue, timeout: timeout.wholeMilliseconds, totalLimit: nil,
              isFenced: true))
        }
      }
      guard sends.areSealed(in: shared.state) else {
        actions.callbacks.append { engine.commit(steps, completion) }
        return true
      }
      do throws(Refusal) {
        // All are asked before one is done; none makes another impossible.
        var sent = 0
        for step in steps { _ = try decide(step, &sent, isAgain: false) }
        let size = sends.size
        if let isDone = engine.refusesRoom(size, drains: drains, completion, &shared, &actions) {
          return isDone
        }
        var (last, receipts) = (engine.told(shared), [SendReceipt]())
        sent = 0
        for step in steps {
          let before = sent
          let done = try decide(step, &sent, isAgain: true)
          switch (done, step) {
          case (.record(let entry), .send(_, let queue)):
            last = engine.append(entry, sends, before, &shared)
            receipts.append(SendReceipt(id: sends.drafts[before].id, lsn: last.value))
            shared.wake(queue)
          case (.duplicate(let id, let message), _):
            shared.state.countDuplicate(sends.drafts[before].queue)
            receipts.append(SendReceipt(id: id, lsn: message, isDuplicate: true))
          case (.record(let entry), _):
            last = engine.append(entry, synced: engine.isSynced, &shared)
            shared.wake(entry.queue)
            if case .transferred(let moved) = entry.record { shared.wake(moved.target) }
          case (nil, _): break
          }
        }
        engine.answerDurably(completion, receipts, after: last, &shared, &actions)
      } catch {
        engine.refuse(completion, PenstockError(error), &shared, &actions)
      }
      return true
    }
  }
}
