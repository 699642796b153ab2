// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

extension Engine {
  /// Largest group of records that fits the log at all, in bytes.
  var maximumGroupSize: Int { LogTail.maximumGroupSize(segmentSize: options.segmentSize) }

  private func size(_ entry: Entry, _ content: MessageContent? = nil) -> Int {
    LogFormat.recordSize(payload: entry.payloadSize(content))
  }

  /// Gives the answer once all that it may tell of is durable.
  private func answerDurably<T: Sendable>(
    _ completion: @escaping Completion<T>, _ value: T, after lsn: LSN, _ shared: inout Shared,
    _ actions: inout Actions
  ) {
    answer(after: lsn, synced: isSynced, &shared, &actions) { error, actions in
      actions.call(completion, error.map { .failure($0) } ?? .success(value))
    }
  }

  /// The newest record that an answer waits for which tells of what was there before it.
  private func told(_ shared: borrowing Shared) -> LSN {
    isSynced ? shared.lastSynced : LSN(shared.tail.nextLSN.value - 1)
  }

  /// Asks for room; answers a full disk itself.
  ///
  /// - Returns: whether to go on (true), to try later (nil), or that the answer is given (false).
  private func room<T: Sendable>(
    _ size: Int, drains: Bool, _ completion: @escaping Completion<T>, _ shared: inout Shared,
    _ actions: inout Actions
  ) -> Bool? {
    if !drains, let allowance = shared.allowance, allowance <= 0 { return nil }
    switch shared.tail.makeRoom(size, for: drains ? .delete : .send) {
    case .ready:
      if !drains { shared.spend(size) }
      return true
    case .wait: return nil
    case .full:
      actions.call(completion, .failure(.full))
      return false
    }
  }

  // MARK: Queues

  func describe(_ queue: QueueID, _ completion: @escaping Completion<QueueDescription>) {
    critical { shared, actions in
      answerDescribed(queue, completion, &shared, &actions)
    }
  }

  /// Answers once everything that the store shows now is durable.
  func settle(_ completion: @escaping Completion<Void>) {
    critical { shared, actions in
      answerDurably(completion, (), after: told(shared), &shared, &actions)
    }
  }

  /// Refuses once everything that the refusal tells of is durable: a queue that is gone, say.
  func refuse<T: Sendable>(
    _ completion: @escaping Completion<T>, _ refusal: PenstockError, _ shared: inout Shared,
    _ actions: inout Actions
  ) {
    answer(after: told(shared), synced: isSynced, &shared, &actions) { error, actions in
      actions.call(completion, .failure(error ?? refusal))
    }
  }

  func createQueue(
    _ name: String, _ change: QueueSettingsChange,
    _ completion: @escaping Completion<QueueDescription>
  ) {
    if let error = PenstockError.badName(name) ?? PenstockError.badSettings(change) {
      return completion(.failure(error))
    }
    submit(drains: false, completion) { engine, shared, actions in
      do throws(Refusal) {
        if let entry = try shared.state.decideCreate(name, change) {
          guard
            let go = engine.room(engine.size(entry), drains: false, completion, &shared, &actions)
          else { return false }
          if go { _ = engine.append(entry, synced: engine.isSynced, &shared) }
          if !go { return true }
        }
        engine.answerDescribed(shared.state.queue(named: name), completion, &shared, &actions)
      } catch {
        engine.refuse(completion, PenstockError(error), &shared, &actions)
      }
      return true
    }
  }

  private func answerDescribed(
    _ queue: QueueID?, _ completion: @escaping Completion<QueueDescription>,
    _ shared: inout Shared, _ actions: inout Actions
  ) {
    guard let queue, let description = shared.state.describe(queue) else {
      return refuse(completion, .noQueue, &shared, &actions)
    }
    // The counts tell of every send and delete before.
    answerDurably(completion, description, after: told(shared), &shared, &actions)
  }

  func changeQueue(
    _ queue: QueueID, _ change: QueueSettingsChange,
    _ completion: @escaping Completion<QueueDescription>
  ) {
    if let error = PenstockError.badSettings(change) { return completion(.failure(error)) }
    submit(drains: true, completion) { engine, shared, actions in
      // What has expired must not come back when the retention grows.
      switch engine.removeExpired(on: queue, for: .delete, &shared) {
      case .ready: break
      case .wait: return false
      case .full:
        actions.call(completion, .failure(.full))
        return true
      }
      do throws(Refusal) {
        let entry = try shared.state.decideChange(queue, change)
        guard let go = engine.room(engine.size(entry), drains: true, completion, &shared, &actions)
        else { return false }
        guard go else { return true }
        _ = engine.append(entry, synced: engine.isSynced, &shared)
        engine.answerDescribed(queue, completion, &shared, &actions)
      } catch {
        engine.refuse(completion, PenstockError(error), &shared, &actions)
      }
      return true
    }
  }

  func deleteQueue(_ queue: QueueID, _ completion: @escaping Completion<Void>) {
    submit(drains: true, completion) { engine, shared, actions in
      do throws(Refusal) {
        let entry = try shared.state.decideRemove(queue)
        guard let go = engine.room(engine.size(entry), drains: true, completion, &shared, &actions)
        else { return false }
        guard go else { return true }
        let lsn = engine.append(entry, synced: engine.isSynced, &shared)
        for waiter in shared.waiters.removeAll(on: queue) {
          actions.call(waiter.completion, .success([]))
        }
        engine.answerDurably(completion, (), after: lsn, &shared, &actions)
      } catch {
        engine.refuse(completion, PenstockError(error), &shared, &actions)
      }
      return true
    }
  }

  func purgeQueue(_ queue: QueueID, _ completion: @escaping Completion<Void>) {
    submit(drains: true, completion) { engine, shared, actions in
      do throws(Refusal) {
        let entry = try shared.state.decidePurge(queue)
        guard let go = engine.room(engine.size(entry), drains: true, completion, &shared, &actions)
        else { return false }
        guard go else { return true }
        let lsn = engine.append(entry, synced: engine.isSynced, &shared)
        engine.answerDurably(completion, (), after: lsn, &shared, &actions)
      } catch {
        engine.refuse(completion, PenstockError(error), &shared, &actions)
      }
      return true
    }
  }

  // MARK: Messages

  func send(
    _ entries: [SendEntry], to queue: QueueID,
    _ completion: @escaping Completion<[Result<SendReceipt, PenstockError>]>
  ) {
    // The largest the records can be, reckoned before the lock is taken.
    var size = 0
    for entry in entries {
      if let delay = entry.delay, delay < .zero {
        return completion(.failure(PenstockError(.invalidArgument, "a delay is negative")))
      }
      let hash = TextHash(high: 0, low: 0)
      let isGrouped = entry.content.groupID != nil
      let sent = Entry(
        queue: queue, time: now,
        record: .sent(
          .init(
            id: MessageID(randomHigh: 0, randomLow: 0), visibleAt: now,
            group: isGrouped ? hash : nil, deduplication: isGrouped ? hash : nil)))
      size += self.size(sent, entry.content)
    }
    guard size <= maximumGroupSize else {
      return completion(
        .failure(
          PenstockError(
            .messageTooLarge,
            "the messages take \(size) bytes together; segments of \(options.segmentSize) bytes "
              + "take at most \(maximumGroupSize) at once", limit: maximumGroupSize)))
    }
    let ids = entries.map { _ in MessageID(randomHigh: random.next(), randomLow: random.next()) }
    let total = size
    let hashes = hashes(of: entries, for: queue)
    submit(drains: false, completion) { engine, shared, actions in
      guard shared.state.exists(queue) else {
        engine.refuse(completion, .noQueue, &shared, &actions)
        return true
      }
      guard let go = engine.room(total, drains: false, completion, &shared, &actions) else {
        return false
      }
      guard go else { return true }
      var last = engine.told(shared)
      var receipts: [Result<SendReceipt, PenstockError>] = []
      receipts.reserveCapacity(entries.count)
      for (index, entry) in entries.enumerated() {
        do throws(Refusal) {
          let send = try shared.state.decideSend(
            queue, messageID: ids[index], size: entry.content.countedSize,
            delay: entry.delay?.wholeMilliseconds,
            group: hashes.isEmpty ? nil : hashes[index].group,
            deduplication: hashes.isEmpty ? nil : hashes[index].deduplication)
          switch send {
          case .record(let record):
            last = engine.append(record, entry.content, synced: engine.isSynced, &shared)
            receipts.append(.success(SendReceipt(id: ids[index], lsn: last.value)))
          case .duplicate(let id, let message):
            receipts.append(.success(SendReceipt(id: id, lsn: message, isDuplicate: true)))
          }
        } catch {
          receipts.append(.failure(PenstockError(error)))
        }
      }
      engine.answerDurably(completion, receipts, after: last, &shared, &actions)
      if shared.waiters.isWaiting(on: queue) {
        engine.serveWaiters(on: queue, &shared, &actions)
      }
      return true
    }
  }

  /// What stands for groups and deduplication ids; empty without groups or in a standard queue.
  private func hashes(
    of entries: [SendEntry], for queue: QueueID
  ) -> [(group: TextHash?, deduplication: TextHash?)] {
    guard entries.contains(where: { $0.content.groupID != nil }),
      let settings = shared.withLock({ $0.state.settings(queue) }), settings.isFIFO
    else { return [] }
    return entries.map { entry in
      guard let group = entry.content.groupID else { return (nil, nil) }
      let scope = settings.deduplicatesByGroup ? group : nil
      var deduplication: TextHash?
      if let id = entry.content.deduplicationID {
        deduplication = hash(Array(id.utf8), in: scope)
      } else if settings.deduplicatesByContent {
        deduplication = hash(entry.content.body, in: scope, isBody: true)
      }
      return (hash(Array(group.utf8), in: nil), deduplication)
    }
  }

  private func hash(_ text: [UInt8], in scope: String?, isBody: Bool = false) -> TextHash {
    var bytes: [UInt8] = [isBody ? 1 : 0, scope == nil ? 0 : 1]
    if let scope {
      bytes += Array(scope.utf8)
      // No text holds this byte, so one scope and text cannot look like another.
      bytes.append(0xff)
    }
    bytes += text
    let other = SipHash(key: (~handleKey.key.0, ~handleKey.key.1))
    return TextHash(high: handleKey.hash(bytes[...]), low: other.hash(bytes[...]))
  }

  func delete(
    _ handles: [LeaseHandle], from queue: QueueID,
    _ completion: @escaping Completion<[Result<Void, PenstockError>]>
  ) {
    // In a FIFO queue it lets the rest of the group go.
    change(handles.count, completion, thenServing: queue) { shared, index throws(Refusal) in
      try shared.state.decideDelete(handles[index], from: queue)
    }
  }

  func changeVisibility(
    _ changes: [VisibilityChange], of queue: QueueID, totalLimit: Duration?,
    _ completion: @escaping Completion<[Result<Void, PenstockError>]>
  ) {
    if changes.contains(where: { $0.timeout < .zero }) {
      return completion(.failure(PenstockError(.invalidArgument, "a timeout is negative")))
    }
    change(changes.count, completion, thenServing: queue) { shared, index throws(Refusal) in
      try shared.state.decideChangeVisibility(
        changes[index].handle, of: queue, timeout: changes[index].timeout.wholeMilliseconds,
        totalLimit: totalLimit?.wholeMilliseconds)
    }
  }

  /// Does one small change per item in one group; those that are refused do not stop the others.
  private func change(
    _ count: Int, _ completion: @escaping Completion<[Result<Void, PenstockError>]>,
    thenServing queue: QueueID? = nil,
    _ decide: @escaping @Sendable (inout Shared, Int) throws(Refusal) -> Entry?
  ) {
    let total = count * Self.smallRecordSize
    guard total <= maximumGroupSize else {
      return completion(
        .failure(PenstockError(.invalidArgument, "\(count) entries are too many for one request")))
    }
    submit(drains: true, completion) { engine, shared, actions in
      guard let go = engine.room(total, drains: true, completion, &shared, &actions) else {
        return false
      }
      guard go else { return true }
      // What is refused or done already tells of records before it: they must be durable too.
      var last = engine.told(shared)
      var results: [Result<Void, PenstockError>] = []
      results.reserveCapacity(count)
      for index in 0..<count {
        do throws(Refusal) {
          if let entry = try decide(&shared, index) {
            last = engine.append(entry, synced: engine.isSynced, &shared)
          }
          results.append(.success(()))
        } catch {
          results.append(.failure(PenstockError(error)))
        }
      }
      engine.answerDurably(completion, results, after: last, &shared, &actions)
      if let queue, shared.waiters.isWaiting(on: queue) {
        engine.serveWaiters(on: queue, &shared, &actions)
      }
      return true
    }
  }

  /// No less than a lease, lease change, delete or expiry record takes.
  static let smallRecordSize = 64
}

extension PenstockError {
  static let noQueue = PenstockError(.queueNotFound, "there is no such queue")

  static func badName(_ name: String) -> PenstockError? {
    guard !name.isEmpty, name.utf8.count <= 256 else {
      return PenstockError(.invalidArgument, "a queue's name has 1 to 256 bytes of UTF-8")
    }
    return nil
  }

  static func badSettings(_ change: QueueSettingsChange) -> PenstockError? {
    func bad(_ name: String, _ duration: Duration?) -> PenstockError? {
      guard let duration, duration < .zero else { return nil }
      return PenstockError(.invalidArgument, "\(name) is negative")
    }
    if let bytes = change.maximumMessageBytes, bytes < 1 {
      return PenstockError(.invalidArgument, "maximumMessageBytes is less than 1")
    }
    return bad("deduplicationWindow", change.deduplicationWindow)
      ?? bad("visibilityTimeout", change.visibilityTimeout) ?? bad("delay", change.delay)
      ?? bad("retention", change.retention) ?? bad("receiveWait", change.receiveWait)
  }
}
