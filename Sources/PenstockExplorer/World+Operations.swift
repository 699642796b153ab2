// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockSystem
internal import PenstockTesting

// What clients ask for, in the store and in the model.

extension World {
  var now: Int64 { machine?.store.now.milliseconds ?? clock.wallMilliseconds() }

  /// Submits an operation, lets it happen in the model as soon as it does in the store, and binds
  /// the timeline when it is answered.
  ///
  /// - Parameters:
  ///   - changes: whether it changes anything, so that it is synced; else it tells of what was
  ///     before it.
  ///   - isTold: whether the answer tells of the change.
  ///   - expected: how the model says it is refused, asked once there is room for it.
  func operate<T: Sendable>(
    _ machine: Machine, isSynced: Bool = true, changes: () -> Bool,
    isTold: () -> Bool = { true },
    _ submit: (@escaping Completion<T>) -> Void,
    model: (inout Timeline.Moment) -> Void,
    answered: @escaping @Sendable (T) throws(Violation) -> Void = { _ in },
    expected: @autoclosure () -> PenstockError.Code? = nil
  ) throws(Violation) {
    let epoch = self.epoch
    operations += 1
    let operation = operations
    let box = Box<T>()
    let state = Flow()
    open.insert(operation)
    submit { [weak self] result in
      box.result = result
      // A store that is dropped answers what is still open.
      guard let self else { return }
      if epoch == self.epoch { open.remove(operation) }
      if state.isApplied { complete(operation, epoch, state, result, answered) }
    }
    try makeRoom(machine)
    if hasEnded { return }
    let expected = expected()
    state.expected = expected
    if case .failure(let error)? = box.result, error.code != expected {
      // Refused before it happened.
      trace.add(error.code.description)
      return try checkMayFail(error, operation)
    }
    let changes = expected == nil && changes()
    if changes {
      state.moment = timeline.happen(
        at: now, lsn: machine.store.lastLSN, isSynced: isSynced, model)
      if !isTold() { state.moment = 0 }
    } else if isSynced {
      // It tells of what was before.
      state.moment = setup.durability == .synced ? timeline.lastSynced : timeline.last
    }
    state.isApplied = true
    state.isOrdered = isSynced && changes
    state.isDurable = isSynced && setup.durability == .synced
    if let result = box.result {
      complete(operation, epoch, state, result, answered)
    } else if state.isOrdered {
      ordered.append(operation)
    }
    try rethrow()
  }

  final class Flow: @unchecked Sendable {  // a world has one thread
    var moment = 0
    var isApplied = false
    /// Whether it waits for the disk, so that its place among the answers is fixed.
    var isOrdered = false
    /// Whether its answer binds a store that loses power.
    var isDurable = false
    /// How it is refused.
    var expected: PenstockError.Code?
  }

  func complete<T>(
    _ operation: Int, _ epoch: Int, _ flow: Flow, _ result: Result<T, PenstockError>,
    _ answered: (T) throws(Violation) -> Void
  ) {
    let expected = flow.expected
    guard epoch == self.epoch, !hasEnded, violation == nil else { return }
    do throws(Violation) {
      switch result {
      case .success(let value):
        trace.add("\(operation)")
        try checks.check(
          .answersAgree, expected == nil, "operation \(operation) succeeded, but should not have")
        try answered(value)
        timeline.acknowledge(flow.moment, survivesPowerLoss: flow.isDurable)
      case .failure(let error):
        trace.add(error.code.description)
        if error.family != .rejected || error.code == .unreadableMessage && readsMayFail {
          try checkMayFail(error, operation)
          break
        }
        try checks.check(
          .answersAgree, error.code == expected, "operation \(operation) was refused: \(error)")
        if error.code == .leaseLost { checks.note(.refusedLease) }
        timeline.acknowledge(flow.moment, survivesPowerLoss: flow.isDurable)
      }
      if flow.isOrdered, let place = ordered.firstIndex(of: operation) {
        try checks.check(
          .answersComeInOrder, place == 0 || isFailure(result),
          "operation \(operation) was answered before \(ordered[0])")
        ordered.remove(at: place)
      }
    } catch { violation = error }
  }

  /// Nothing fails that has no reason to.
  func checkMayFail(_ error: PenstockError, _ operation: Int) throws(Violation) {
    if error.code == .storeFull { checks.note(.refusedFull) }
    let hasReason = mayFail || error.code == .storeFull && mayBeFull
    try checks.check(
      .answersAgree, hasReason && error.code != .corrupted,
      "operation \(operation) failed for no reason: \(error)")
  }

  func isFailure<T>(_ result: Result<T, PenstockError>) -> Bool {
    if case .failure = result { true } else { false }
  }

  func id(_ queue: Int) -> QueueID {
    timeline.present.queues[queue] ?? QueueID(1_000_000)
  }

  func change(
    _ queue: Int, _ machine: Machine, _ submit: (QueueID, @escaping Completion<Void>) -> Void,
    _ model: (inout Timeline.Moment, QueueID) -> Void
  ) throws(Violation) {
    let id = id(queue)
    let exists = timeline.present.queues[queue] != nil
    try operate(
      machine, changes: { true }, { submit(id, $0) }, model: { model(&$0, id) },
      expected: exists ? nil : .queueNotFound)
  }

  func describe(_ queue: Int, _ machine: Machine) throws(Violation) {
    // Counts include what has outlived its retention until the scheduler has seen to that; looking
    // lets time go on.
    let id = id(queue)
    _ = machine.store.lookup(id)
    for _ in 0..<1000 {
      guard
        let worker = machine.driver.due.first(where: { $0 == .scheduler || $0 == .preparer }),
        !hasEnded, violation == nil
      else { break }
      turn(worker, machine)
    }
    if hasEnded { return }
    // A store that failed logs no expiry any more, nor may one on a full disk.
    if machine.store.isClosed || disk.capacity != nil { return }
    let exists = timeline.present.queues[queue] != nil
    let present = timeline.present
    let now = now
    let overdue = machine.store.overdue(id)
    try operate(
      machine, changes: { false }, { machine.store.describe(id, $0) }, model: { _ in },
      answered: { (description: QueueDescription) throws(Violation) in
        var oracle = present.oracle
        oracle.advance(to: now)
        guard oracle.counts(id).map({ $0.isShown(by: description.counts, overdue) }) ?? false
        else {
          throw Violation(.answersAgree, "counts of queue \(queue): \(description.counts)")
        }
      }, expected: exists ? nil : .queueNotFound)
  }

  func received(
    _ messages: [ReceivedMessage], _ expected: [Oracle.Message], _ queue: Int, _ id: QueueID
  ) throws(Violation) {
    let found = messages.map { timeline.number($0.content.body) ?? 0 }
    trace.add(found.description)
    try checks.check(
      .recoveredWasSubmitted, !found.contains(0), "received bytes that nobody sent")
    // Messages that cannot be read are left out, and reported; those that somebody deleted after
    // they were taken may be.
    let expected = expected.filter {
      found.contains($0.number) || !readsMayFail && isThere($0.number, id)
    }
    try checks.check(
      .answersAgree,
      found == expected.map(\.number)
        && messages.map(\.receiveCount) == expected.map(\.receiveCount)
        && messages.map(\.leaseEndsAt.milliseconds) == expected.map { $0.hiddenUntil ?? 0 },
      "received \(found), the model says \(expected.map(\.number))")
    for (message, number) in zip(messages, found) {
      handles.append((message.handle, queue, number))
    }
    if setup.durability == .synced { timeline.deliver(found, of: queue) }
  }

  func isThere(_ number: UInt64, _ queue: QueueID) -> Bool {
    var oracle = timeline.present.oracle
    oracle.advance(to: now)
    return oracle.messages(queue).contains { $0.number == number }
  }
}

extension QueueCounts {
  /// Whether a store may show these for what it has: so many messages that have outlived their
  /// retention may still be counted.
  func isShown(by shown: QueueCounts, _ overdue: Int) -> Bool {
    visible <= shown.visible && shown.visible <= visible + overdue && leased == shown.leased
      && delayed == shown.delayed
  }
}
