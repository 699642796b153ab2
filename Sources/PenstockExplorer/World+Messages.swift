// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockSystem
internal import PenstockTesting

// What clients do with messages, in the store and in the model.

extension World {
  func create(_ step: Step, _ queue: Int, _ machine: Machine) throws(Violation) {
    let name = "q\(queue)"
    // Queue 3 takes the dead letters of the others.
    let receives = queue == 3 ? 0 : step.number(2, 0...1000)
    let change = QueueSettingsChange {
      if step.number(1, 0...1) == 1 { $0.isFIFO = true }
      if receives > 0 {
        $0.deadLetterQueue = "q3"
        $0.maximumReceives = receives
      }
    }
    let present = timeline.present
    let old = present.queues[queue].flatMap { present.oracle.settings($0) }
    let settings = change.applied(to: old ?? QueueSettings())
    var expected: PenstockError.Code?
    if let old {
      expected = settings == old ? nil : .queueExists
    } else if receives > 0 {
      let target = present.queues[3].flatMap { present.oracle.settings($0) }
      expected =
        target == nil
        ? .deadLetterQueueNotFound : target?.isFIFO == settings.isFIFO ? nil : .invalidArgument
    }
    try operate(
      machine, changes: { old == nil },
      { machine.store.createQueue(name, change, $0) },
      model: { moment in
        guard let id = machine.store.lookup(name)?.id else { return }
        moment.queues[queue] = id
        moment.oracle.createQueue(id, settings, named: name)
      }, expected: expected)
  }

  // MARK: Sending

  /// A message of the history on its way to a queue.
  private struct Draft {
    var number: UInt64
    var id: QueueID
    var delay: Duration?
    /// In a FIFO queue, or in a fair one unless it is 0.
    var group: String?
    var repetition: String?
    var priority = 0

    func entry(_ body: [UInt8]) -> SendEntry {
      let content = MessageContent(body: body, groupID: group, deduplicationID: repetition)
      return SendEntry(content, delay: delay, priority: UInt8(priority))
    }

    /// Sends in the model; answers whose place the message took, its own or that of another.
    func send(_ oracle: inout Oracle) -> UInt64 {
      oracle.send(
        number, to: id, delay: delay, group: group ?? "", deduplication: repetition,
        priority: priority) ?? number
    }
  }

  private func draft(_ number: UInt64, _ id: QueueID, _ delay: Duration?) -> Draft {
    var draft = Draft(number: number, id: id, delay: delay)
    if let sent = timeline.sent[number], isFIFO(id) || sent.line > 0 {
      draft.group = "g\(sent.line)"
      if sent.repetition > 0 { draft.repetition = "d\(sent.repetition)" }
    }
    return draft
  }

  func isFIFO(_ id: QueueID) -> Bool { timeline.present.oracle.settings(id)?.isFIFO ?? false }

  final class Sending: @unchecked Sendable {  // a world has one thread
    /// Whose places the messages take.
    var originals: [UInt64] = []
  }

  func send(_ step: Step, _ queue: Int, _ machine: Machine) throws(Violation) {
    let id = id(queue)
    let exists = timeline.present.queues[queue] != nil
    let delay = Duration.milliseconds(step.number(3, 0...900_000))
    let count = step.number(1, 1...20)
    // More than a segment takes at once would be refused.
    let hasGroup = isFIFO(id) || step.number(4, 0...1000) > 0
    let size = step.number(2, 8...16_000 / count - (hasGroup ? 128 : 64))
    let priority = isFIFO(id) ? 0 : step.number(6, 0...255)
    let numbers = timeline.numbers(
      count, queue: queue, size: size, line: priority > 0 ? 0 : step.number(4, 0...1000),
      repetition: isFIFO(id) ? step.number(5, 0...1000) : 0, priority: priority)
    var drafts = numbers.map { draft($0, id, delay) }
    for index in drafts.indices { drafts[index].priority = priority }
    let entries = drafts.map { $0.entry(timeline.body($0.number)) }
    let sending = Sending()
    let before = machine.store.lastLSN
    try operate(
      machine,
      changes: {
        var oracle = timeline.present.oracle
        oracle.advance(to: now)
        sending.originals = drafts.map { $0.send(&oracle) }
        let fresh = zip(numbers, sending.originals).filter { $0 == $1 }.map(\.0)
        if let last = machine.store.state({ $0.newestMessage(id) }), last > before {
          timeline.place(fresh, last: last)
        }
        return !fresh.isEmpty
      },
      { machine.store.send(entries, to: id, $0) },
      model: { moment in
        for draft in drafts { _ = draft.send(&moment.oracle) }
      },
      answered: { [unowned self] results throws(Violation) in
        for (result, (number, original)) in zip(results, zip(numbers, sending.originals)) {
          switch result {
          case .success(let receipt): try told(receipt, number, original)
          case .failure(let error):
            throw Violation(.answersAgree, "a message of a batch was refused: \(error)")
          }
        }
      }, expected: exists ? nil : .queueNotFound)
  }

  /// A send is answered with its own LSN, or with that of the one it repeats.
  private func told(
    _ receipt: SendReceipt, _ number: UInt64, _ original: UInt64
  ) throws(Violation) {
    if receipt.isDuplicate { checks.note(.repeated) }
    guard timeline.sent[number]?.repetition ?? 0 > 0 else { return }
    try checks.check(
      .repetitionsAreKnown,
      receipt.isDuplicate == (number != original)
        && timeline.number(lsn: receipt.lsn) == original,
      "send \(number) repeats \(original), and was answered as \(receipt)")
  }

  /// Deletes one message and sends another, together.
  func commit(_ step: Step, _ machine: Machine) throws(Violation) {
    guard !handles.isEmpty else { return }
    let newest = handles.count - 1
    let (handle, _, deleted) = handles[newest - step.number(0, 0...1_000_000) % handles.count]
    let queue = step.number(1, 0...3)
    let id = id(queue)
    let number = timeline.numbers(
      1, queue: queue, size: step.number(2, 8...16_000 - 256), line: step.number(3, 0...1000),
      repetition: isFIFO(id) ? step.number(4, 0...1000) : 0)[0]
    var transaction = Transaction()
    transaction.delete(handle)
    let draft = draft(number, id, nil)
    transaction.send(draft.entry(timeline.body(number)), to: id)
    let steps = transaction
    let sending = Sending()
    let before = machine.store.lastLSN
    func follow(_ oracle: inout Oracle) -> PenstockError.Code? {
      guard oracle.settings(handle.queue) != nil else { return .queueNotFound }
      let done = oracle.delete(deleted, from: handle.queue, lease: handle.token, isFenced: true)
      guard done == .done else { return .leaseLost }
      guard oracle.settings(id) != nil else { return .queueNotFound }
      sending.originals = [draft.send(&oracle)]
      return nil
    }
    try operate(
      machine,
      changes: {
        if let last = machine.store.state({ $0.newestMessage(id) }), last > before,
          sending.originals == [number]
        {
          timeline.place([number], last: last)
          timeline.commit(deleted: deleted, sent: number)
        }
        checks.note(.committed)
        return true
      },
      { machine.store.commit(steps, $0) },
      model: { moment in _ = moment.oracle.together { follow(&$0) == nil } },
      answered: { [unowned self] receipts throws(Violation) in
        guard let receipt = receipts.first, receipts.count == 1 else {
          throw Violation(.answersAgree, "a transaction with one send has receipts \(receipts)")
        }
        try told(receipt, number, sending.originals.first ?? 0)
      },
      expected: {
        var oracle = timeline.present.oracle
        oracle.advance(to: now)
        return follow(&oracle)
      }())
  }

  // MARK: Receiving

  final class Expectation: @unchecked Sendable {  // a world has one thread
    /// What the store took, with its leases; what it moved; and what was taken in the model.
    var taken: [(number: UInt64, lease: UInt64)] = []
    var moved: [UInt64] = []
    var messages: [Oracle.Message] = []
    var before = Oracle(at: 0)
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
        expectation.before = timeline.present.oracle
        expectation.before.advance(to: now)
        expectation.taken = machine.store.state { $0.leased(id, after: before) }.map {
          (timeline.number(lsn: $0.message), $0.token)
        }
        expectation.moved = machine.store.state { $0.transferred(after: before) }.map {
          timeline.move(token: $0.token, lsn: $0.message)
        }
        for (number, token) in expectation.taken { timeline.lease(number, token: token) }
        for _ in expectation.moved { checks.note(.transferred) }
        return !expectation.taken.isEmpty || !expectation.moved.isEmpty
      },
      // Who gets nothing is not told that something was moved.
      isTold: { !expectation.taken.isEmpty },
      {
        machine.store.receive(
          ReceiveRequest(maximumMessages: limit, wait: .zero, visibilityTimeout: timeout),
          from: id, $0)
      },
      model: { moment in
        expectation.messages =
          moment.oracle.follow(
            taken: expectation.taken, moved: expectation.moved, from: id, timeout: timeout) ?? []
      },
      answered: { [unowned self] messages throws(Violation) in
        try received(messages, expectation.messages, queue, id)
      }, expected: exists ? nil : .queueNotFound)
    try check(expectation, from: id, limit: limit, timeout: timeout)
  }

  /// Whether a receive may do what it did.
  private func check(
    _ done: Expectation, from id: QueueID, limit: Int, timeout: Duration
  ) throws(Violation) {
    let numbers = done.taken.map(\.number)
    var oracle = done.before
    let mayFollow =
      oracle.follow(taken: done.taken, moved: done.moved, from: id, timeout: timeout) != nil
    if isFIFO(id) {
      let all = done.before.messages(id)
      let overtaken = all.first { message in
        !done.before.isVisible(message)
          && all.drop { $0 != message }
            .contains { $0.group == message.group && numbers.contains($0.number) }
      }
      try checks.check(
        .groupRunsExclude, overtaken == nil,
        "a receive took \(numbers), though \(overtaken?.number ?? 0) is in flight")
      try checks.check(
        .groupOrderIsKept, mayFollow,
        "a receive took \(numbers) of \(all.map { "\($0.number) in \($0.group)" })")
    }
    // What is parked need not come at once, but something must, and nothing behind it.
    let left = oracle.next(in: id, after: numbers + done.moved)
    let isEnough =
      left.isEmpty || numbers.count == limit
      || !isFIFO(id) && !(numbers.isEmpty && done.moved.isEmpty)
    try checks.check(
      .answersAgree, mayFollow && isEnough && numbers.count <= limit,
      "a receive of \(limit) took \(numbers) and moved \(done.moved), the model has "
        + "\(done.before.messages(id).filter(done.before.isVisible).map(\.number))")
  }

  // MARK: Holding

  final class Outcome: @unchecked Sendable {  // a world has one thread
    var change = Oracle.Change.notFound
  }

  func delete(_ step: Step, _ machine: Machine) throws(Violation) {
    guard !handles.isEmpty else { return }
    let (handle, _, number) = handles[step.number(0, 0...1_000_000) % handles.count]
    let exists = timeline.present.queues.values.contains(handle.queue)
    let isFIFO = isFIFO(handle.queue)
    let outcome = Outcome()
    try operate(
      machine,
      changes: {
        var oracle = timeline.present.oracle
        oracle.advance(to: now)
        outcome.change = oracle.delete(number, from: handle.queue, lease: handle.token)
        return outcome.change == .done
      },
      { machine.store.delete([handle], from: handle.queue, $0) },
      model: { $0.oracle.delete(number, from: handle.queue, lease: handle.token) },
      answered: { [unowned self] results throws(Violation) in
        guard case .failure(let error)? = results.first else {
          if exists, outcome.change == .leaseLost {
            throw Violation(.answersAgree, "a delete of \(number) with a lost lease is done")
          }
          return
        }
        if !exists, error.code == .queueNotFound { return }
        // A message whose retention is over may not have been removed yet.
        if isFIFO, error.code == .leaseLost, outcome.change != .done {
          checks.note(.refusedLease)
          return
        }
        throw Violation(.answersAgree, "a delete was refused: \(error)")
      })
  }

  func hide(_ step: Step, _ machine: Machine) throws(Violation) {
    guard !handles.isEmpty else { return }
    let (handle, _, number) = handles[step.number(0, 0...1_000_000) % handles.count]
    let timeout = Duration.milliseconds(step.number(1, 0...43_200_000))
    let outcome = Outcome()
    try operate(
      machine,
      changes: {
        var oracle = timeline.present.oracle
        oracle.advance(to: now)
        outcome.change = oracle.changeVisibility(
          number, of: handle.queue, timeout: timeout, lease: handle.token)
        return outcome.change == .done
      },
      {
        machine.store.changeVisibility(
          [VisibilityChange(handle: handle, timeout: timeout)], of: handle.queue, $0)
      },
      model: {
        _ = $0.oracle.changeVisibility(
          number, of: handle.queue, timeout: timeout, lease: handle.token)
      },
      answered: { results throws(Violation) in
        let succeeded = if case .success? = results.first { true } else { false }
        guard succeeded != (outcome.change == .done) else { return }
        throw Violation(
          .answersAgree, "a change of visibility of \(number): \(results), \(outcome.change)")
      })
  }
}
