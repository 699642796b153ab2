// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import PenstockTesting

// Messages that leave their queue without being received: sweeps over a part of it, and rejects.

extension World {
  private final class Gone: @unchecked Sendable {  // a world has one thread
    var numbers: [UInt64] = []
  }

  /// The look happens when the reader comes to it, and tells of nothing that could be broken.
  func look(_ queue: Int, _ machine: Machine) {
    let (id, epoch) = (id(queue), epoch)
    machine.store.walk(id, from: cursors[id] ?? WalkCursor()) { [weak self] result in
      guard let self, epoch == self.epoch, !hasEnded, case .success(let part) = result else {
        return
      }
      cursors[id] = part.next
      seen[id, default: []] += part.messages
    }
  }

  func sweep(_ step: Step, _ queue: Int, _ machine: Machine) throws(Violation) {
    let id = id(queue)
    let exists = timeline.present.queues[queue] != nil
    let divisor = UInt64(step.number(1, 1...1000))
    let picked = (seen[id] ?? []).filter {
      (timeline.number($0.content.body) ?? 1).isMultiple(of: divisor)
    }
    seen[id] = nil
    let gone = Gone()
    try operate(
      machine,
      changes: {
        // What came into memory meanwhile stays.
        let numbers = picked.filter { !machine.store.holds($0.lsn, in: id) }
          .compactMap { timeline.number($0.content.body) }.filter { isThere($0, id) }
        // One may have been seen twice.
        gone.numbers = Set(numbers).sorted()
        for _ in gone.numbers { checks.note(.swept) }
        return !gone.numbers.isEmpty
      },
      { machine.store.sweep(picked, of: id, $0) },
      model: { moment in
        for number in gone.numbers { moment.oracle.remove(number, from: id) }
      },
      answered: { count throws(Violation) in
        if count < gone.numbers.count {
          throw Violation(.answersAgree, "a sweep took \(gone.numbers), and says \(count)")
        }
      }, expected: exists ? nil : .queueNotFound)
  }

  func reject(_ step: Step, _ machine: Machine) throws(Violation) {
    guard !handles.isEmpty else { return }
    let (handle, _, number) = handles[step.number(0, 0...1_000_000) % handles.count]
    let before = machine.store.lastLSN
    let gone = Gone()
    var canReject = false
    try operate(
      machine,
      changes: {
        var oracle = timeline.present.oracle
        oracle.advance(to: now)
        canReject =
          oracle.isHeld(handle.token, of: number, in: handle.queue)
          && oracle.deadLetterQueue(of: handle.queue) != nil
        gone.numbers = machine.store.state { $0.transferred(after: before) }.map {
          timeline.move(token: $0.token, lsn: $0.message)
        }
        for _ in gone.numbers { checks.note(.rejected) }
        return !gone.numbers.isEmpty
      },
      { machine.store.reject([handle], $0) },
      model: { moment in
        for number in gone.numbers { moment.oracle.move(number, from: handle.queue) }
      })
    try checks.check(
      .answersAgree, gone.numbers == (canReject ? [number] : []) || hasEnded,
      "a reject of \(number) moved \(gone.numbers)")
  }
}
