// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

extension Engine {
  /// Largest group of records that fits the log at all, in bytes.
  var maximumGroupSize: Int { LogTail.maximumGroupSize(segmentSize: options.segmentSize) }

  func size(_ entry: Entry) -> Int { LogFormat.recordSize(payload: entry.payloadSize()) }

  /// Gives the answer once all that it may tell of is durable.
  func answerDurably<T: Sendable>(
    _ completion: @escaping Completion<T>, _ value: T, after lsn: LSN, _ shared: inout Shared,
    _ actions: inout Actions
  ) {
    answer(after: lsn, synced: isSynced, &shared, &actions) { error, actions in
      actions.call(completion, error.map { .failure($0) } ?? .success(value))
    }
  }

  /// The newest record that an answer waits for which tells of what was there before it.
  func told(_ shared: borrowing Shared) -> LSN {
    isSynced ? shared.lastSynced : LSN(shared.tail.nextLSN.value - 1)
  }

  /// Asks for room; answers a full disk itself.
  ///
  /// - Returns: nil when there is; else whether the answer is given, or it is to be tried later.
  func refusesRoom<T: Sendable>(
    _ size: Int, drains: Bool, _ completion: @escaping Completion<T>, _ shared: inout Shared,
    _ actions: inout Actions
  ) -> Bool? {
    if !drains, let allowance = shared.allowance, allowance <= 0 { return false }
    switch shared.tail.makeRoom(size, for: drains ? .delete : .send) {
    case .ready:
      if !drains { shared.spend(size) }
      return nil
    case .wait: return false
    case .full:
      actions.call(completion, .failure(.full))
      return true
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
    _ name: String, _ change: QueueSettingsChange, _ defaults: QueueSettings,
    _ completion: @escaping Completion<QueueDescription>
  ) {
    if let error = PenstockError.badName(name) ?? PenstockError.badSettings(change) {
      return completion(.failure(error))
    }
    submit(drains: false, completion) { engine, shared, actions in
      do throws(Refusal) {
        if let entry = try shared.state.decideCreate(name, change, beside: defaults) {
          if let error = engine.badSize(engine.size(entry)) {
            actions.call(completion, .failure(error))
            return true
          }
          let size = engine.size(entry)
          if let isDone = engine.refusesRoom(size, drains: false, completion, &shared, &actions) {
            return isDone
          }
          _ = engine.append(entry, synced: engine.isSynced, &shared)
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

  func changeQueue<Refused: Error>(
    _ queue: QueueID,
    _ decide: @escaping @Sendable (QueueSettings) -> Result<QueueSettingsChange?, Refused>,
    _ answer: @escaping Completion<Result<QueueDescription, Refused>>
  ) {
    let completion: Completion<QueueDescription> = { answer($0.map { .success($0) }) }
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
        guard let old = shared.state.settings(queue) else { throw .queueNotFound }
        let change: QueueSettingsChange
        switch decide(old) {
        case .success(nil):
          engine.answerDescribed(queue, completion, &shared, &actions)
          return true
        case .success(let decided?): change = decided
        case .failure(let error):
          engine.answerDurably(
            answer, .failure(error), after: engine.told(shared), &shared, &actions)
          return true
        }
        let entry = try shared.state.decideChange(queue, change)
        if let error = PenstockError.badSettings(change) ?? engine.badSize(engine.size(entry)) {
          actions.call(completion, .failure(error))
          return true
        }
        let size = engine.size(entry)
        if let isDone = engine.refusesRoom(size, drains: true, completion, &shared, &actions) {
          return isDone
        }
        _ = engine.append(entry, synced: engine.isSynced, &shared)
        // More may be leased now, or delays have ended.
        shared.wake(queue)
        engine.answerDescribed(queue, completion, &shared, &actions)
      } catch {
        engine.refuse(completion, PenstockError(error), &shared, &actions)
      }
      return true
    }
  }

  func deleteQueue(_ queue: QueueID, _ completion: @escaping Completion<Void>) {
    log(completion) { state throws(Refusal) in
      try state.decideDeleteQueue(queue)
    } then: { shared, actions in
      for waiter in shared.waiters.removeAll(on: queue) {
        actions.call(waiter.completion, .success([]))
      }
      return ()
    }
  }

  func purgeQueue(_ queue: QueueID, _ completion: @escaping Completion<Void>) {
    log(completion) { state throws(Refusal) in
      try state.decidePurge(queue)
    } then: { _, _ in
      ()
    }
  }

  /// Logs what `decide` answers, then answers with what `finish` does.
  func log<T: Sendable>(
    _ completion: @escaping Completion<T>,
    _ decide: @escaping @Sendable (State) throws(Refusal) -> Entry,
    then finish: @escaping @Sendable (inout Shared, inout Actions) -> T?
  ) {
    submit(drains: true, completion) { engine, shared, actions in
      do throws(Refusal) {
        let entry = try decide(shared.state)
        let size = engine.size(entry)
        if let isDone = engine.refusesRoom(size, drains: true, completion, &shared, &actions) {
          return isDone
        }
        let lsn = engine.append(entry, synced: engine.isSynced, &shared)
        if let value = finish(&shared, &actions) {
          engine.answerDurably(completion, value, after: lsn, &shared, &actions)
        }
      } catch {
        engine.refuse(completion, PenstockError(error), &shared, &actions)
      }
      return true
    }
  }

  // MARK: Messages

  func delete(
    _ handles: [LeaseHandle], from queue: QueueID, isFenced: Bool,
    _ completion: @escaping Completion<[Result<Void, PenstockError>]>
  ) {
    // In a FIFO queue it lets the rest of the group go.
    change(handles.count, completion, thenServing: queue) { shared, index throws(Refusal) in
      try shared.state.decideDelete(handles[index], from: queue, isFenced: isFenced)
    }
  }

  func reject(
    _ handles: [LeaseHandle], _ completion: @escaping Completion<[Result<Void, PenstockError>]>
  ) {
    guard let queue = handles.first?.queue else { return completion(.success([])) }
    change(handles.count, completion, thenServing: queue) { shared, index throws(Refusal) in
      let entry = try shared.state.decideReject(handles[index])
      if case .transferred(let moved) = entry.record { shared.wake(moved.target) }
      return entry
    }
  }

  func changeVisibility(
    _ changes: [VisibilityChange], of queue: QueueID, totalLimit: Duration?, isFenced: Bool,
    _ completion: @escaping Completion<[Result<Void, PenstockError>]>
  ) {
    if changes.contains(where: { $0.timeout < .zero }) {
      return completion(.failure(PenstockError(.invalidArgument, "a timeout is negative")))
    }
    change(changes.count, completion, thenServing: queue) { shared, index throws(Refusal) in
      try shared.state.decideChangeVisibility(
        changes[index].handle, of: queue, timeout: changes[index].timeout.wholeMilliseconds,
        totalLimit: totalLimit?.wholeMilliseconds, isFenced: isFenced)
    }
  }

  /// Does one small change per item in one group; those that are refused do not stop the others.
  private func change(
    _ count: Int, _ completion: @escaping Completion<[Result<Void, PenstockError>]>,
    thenServing queue: QueueID,
    _ decide: @escaping @Sendable (inout Shared, Int) throws(Refusal) -> Entry?
  ) {
    let total = count * Self.smallRecordSize
    guard total <= maximumGroupSize else {
      return completion(
        .failure(PenstockError(.invalidArgument, "\(count) entries are too many for one request")))
    }
    submit(drains: true, completion) { engine, shared, actions in
      if let isDone = engine.refusesRoom(total, drains: true, completion, &shared, &actions) {
        return isDone
      }
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
      shared.wake(queue)
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

  /// Far less than a checkpoint takes at once.
  private static let maximumSettings = 1 << 20

  static func badSettings(_ change: QueueSettingsChange) -> PenstockError? {
    let names = (change.deadLetterSources.flatMap { $0 } ?? []) + [change.deadLetterQueue ?? ""]
    guard names.count <= 1000, names.allSatisfy({ $0.utf8.count <= 256 }) else {
      return PenstockError(
        .invalidArgument, "names of queues have 256 bytes at most, and a list of them 1000")
    }
    let size = change.applied(to: QueueSettings()).encodedSize
    if size > maximumSettings {
      return PenstockError(
        .invalidArgument, "the settings take \(size) bytes, and may take \(maximumSettings)")
    }
    if let bytes = change.maximumMessageBytes, bytes < 1 {
      return PenstockError(.invalidArgument, "maximumMessageBytes is less than 1")
    }
    return change.firstNegative.map {
      PenstockError(.invalidArgument, "\($0) is negative", setting: $0)
    }
  }
}
