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
  ///   - expected: how the model says it is answered.
  func operate<T: Sendable>(
    _ machine: Machine, isSynced: Bool = true, changes: () -> Bool,
    _ submit: (@escaping Completion<T>) -> Void,
    model: (inout Timeline.Moment) -> Void,
    answered: @escaping @Sendable (T) throws(Violation) -> Void = { _ in },
    expected: PenstockError.Code? = nil
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
      if state.isApplied { complete(operation, epoch, state, result, expected, answered) }
    }
    try makeRoom(machine)
    if hasEnded { return }
    if case .failure(let error)? = box.result, error.code != expected {
      // Refused before it happened.
      trace.add(error.code.description)
      return try checkMayFail(error, operation)
    }
    let changes = expected == nil && changes()
    if changes {
      state.moment = timeline.happen(
        at: now, lsn: machine.store.lastLSN, isSynced: isSynced, model)
    } else if isSynced {
      // It tells of what was before.
      state.moment = setup.durability == .synced ? timeline.lastSynced : timeline.last
    }
    state.isApplied = true
    state.isOrdered = isSynced && changes
    state.isDurable = isSynced && setup.durability == .synced
    if let result = box.result {
      complete(operation, epoch, state, result, expected, answered)
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
  }

  func complete<T>(
    _ operation: Int, _ epoch: Int, _ flow: Flow, _ result: Result<T, PenstockError>,
    _ expected: PenstockError.Code?, _ answered: (T) throws(Violation) -> Void
  ) {
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

  func create(_ queue: Int, _ machine: Machine) throws(Violation) {
    let name = "q\(queue)"
    let exists = timeline.present.queues[queue] != nil
    try operate(
      machine, changes: { !exists },
      { machine.store.createQueue(name, QueueSettingsChange(), $0) },
      model: { moment in
        guard let id = machine.store.lookup(name)?.id else { return }
        moment.queues[queue] = id
        moment.oracle.createQueue(id, QueueSettings())
      })
  }

  func describe(_ queue: Int, _ machine: Machine) throws(Violation) {
    // Counts include what has outlived its retention until the scheduler has seen to that; looking
    // lets time go on.
    _ = machine.store.lookup("q\(queue)")
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
    let id = id(queue)
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

  func send(_ step: Step, _ queue: Int, _ machine: Machine) throws(Violation) {
    let id = id(queue)
    let exists = timeline.present.queues[queue] != nil
    let delay = Duration.milliseconds(step.number(3, 0...900_000))
    let count = step.number(1, 1...20)
    // More than a segment takes at once would be refused.
    let size = step.number(2, 8...16_000 / count - 64)
    let numbers = timeline.numbers(count, queue: queue, size: size)
    let entries = numbers.map {
      SendEntry(MessageContent(body: timeline.body($0)), delay: delay)
    }
    let before = machine.store.lastLSN
    try operate(
      machine,
      changes: {
        if let last = machine.store.newestMessage(id), last > before {
          timeline.place(numbers, last: last)
        }
        return true
      },
      { machine.store.send(entries, to: id, $0) },
      model: { moment in
        for number in numbers { moment.oracle.send(number, to: id, delay: delay) }
      },
      answered: { results throws(Violation) in
        for case .failure(let error) in results {
          throw Violation(.answersAgree, "a message of a batch was refused: \(error)")
        }
      }, expected: exists ? nil : .queueNotFound)
  }

  func receive(_ step: Step, _ queue: Int, _ machine: Machine) throws(Violation) {
    let id = id(queue)
    let exists = timeline.present.queues[queue] != nil
    let limit = step.number(1, 1...50)
    let timeout = Duration.milliseconds(step.number(2, 0...43_200_000))
    let expectation = Expectation()
    let before = machine.store.lastLSN
    try operate(
      machine, isSynced: false,
      changes: {
        var oracle = timeline.present.oracle
        oracle.advance(to: now)
        expectation.visible =
          oracle.receive(from: id, limit: limit, timeout: timeout).map(\.number)
        expectation.taken =
          machine.store.leased(id, after: before).map { timeline.number(lsn: $0) }
        return !expectation.taken.isEmpty
      },
      {
        machine.store.receive(
          ReceiveRequest(maximumMessages: limit, wait: .zero, visibilityTimeout: timeout),
          from: id, $0)
      },
      model: { moment in
        expectation.messages = moment.oracle.receive(
          expectation.taken, from: id, timeout: timeout)
      },
      answered: { [unowned self] messages throws(Violation) in
        try received(messages, expectation.messages, queue, id)
      }, expected: exists ? nil : .queueNotFound)
    // What is parked need not come at once, but something must, and nothing behind it.
    let (taken, visible) = (expectation.taken, expectation.visible)
    try checks.check(
      .answersAgree, visible.starts(with: taken) && (visible.isEmpty || !taken.isEmpty),
      "a receive took \(taken), the model has \(visible)")
  }

  final class Expectation: @unchecked Sendable {  // a world has one thread
    /// What the model would have given, what the store took, and that in the model.
    var visible: [UInt64] = []
    var taken: [UInt64] = []
    var messages: [Oracle.Message] = []
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
    if setup.durability == .synced { timeline.deliver(found) }
  }

  func delete(_ step: Step, _ machine: Machine) throws(Violation) {
    guard !handles.isEmpty else { return }
    let (handle, _, number) = handles[step.number(0, 0...1_000_000) % handles.count]
    let exists = timeline.present.queues.values.contains(handle.queue)
    try operate(
      machine,
      changes: { exists && isThere(number, handle.queue) },
      { machine.store.delete([handle], from: handle.queue, $0) },
      model: { $0.oracle.delete(number, from: handle.queue) },
      answered: { results throws(Violation) in
        guard case .failure(let error)? = results.first, exists || error.code != .queueNotFound
        else { return }
        throw Violation(.answersAgree, "a delete was refused: \(error)")
      })
  }

  func isThere(_ number: UInt64, _ queue: QueueID) -> Bool {
    var oracle = timeline.present.oracle
    oracle.advance(to: now)
    return oracle.messages(queue).contains { $0.number == number }
  }

  func hide(_ step: Step, _ machine: Machine) throws(Violation) {
    guard !handles.isEmpty else { return }
    let (handle, _, number) = handles[step.number(0, 0...1_000_000) % handles.count]
    let timeout = Duration.milliseconds(step.number(1, 0...43_200_000))
    var oracle = timeline.present.oracle
    oracle.advance(to: now)
    let isDone = oracle.changeVisibility(number, of: handle.queue, timeout: timeout) == .done
    try operate(
      machine, changes: { isDone },
      {
        machine.store.changeVisibility(
          [VisibilityChange(handle: handle, timeout: timeout)], of: handle.queue, $0)
      },
      model: { _ = $0.oracle.changeVisibility(number, of: handle.queue, timeout: timeout) },
      answered: { results throws(Violation) in
        let succeeded = if case .success? = results.first { true } else { false }
        guard succeeded != isDone else { return }
        throw Violation(.answersAgree, "a change of visibility: \(results)")
      })
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
