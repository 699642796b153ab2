// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import PenstockTesting
import Testing

private let fifo = QueueSettingsChange { $0.isFIFO = true }

/// A FIFO queue with one group of three messages.
private struct Three {
  var machine = Machine()
  let queue: QueueID
  var m: [UInt64] = []

  init() throws {
    queue = try machine.create("q", fifo)
    for _ in 0..<3 { m.append(try #require(try machine.send(queue, group: 1))) }
  }

  mutating func receive(_ limit: Int = 10, timeout: Int64 = 30_000) throws -> [LeaseHandle] {
    try machine.receive(queue, limit, timeout: timeout)
  }

  mutating func numbers(_ limit: Int = 10, timeout: Int64 = 30_000) throws -> [UInt64] {
    try receive(limit, timeout: timeout).map(\.message)
  }
}

/// *Deliver only the longest run of visible messages from the head of a group.*
@Suite struct TheRuleOfGroups {
  @Test func aGroupInFlightIsClosedAlsoToNewMessages() throws {
    var three = try Three()
    #expect(try three.numbers(1) == [three.m[0]])
    try three.machine.send(three.queue, group: 1)
    #expect(try three.numbers() == [])
  }

  @Test func aDeleteOfTheFirstOfTwoInFlightOpensNothing() throws {
    var three = try Three()
    let handles = try three.receive(2)
    try three.machine.delete(handles[0])
    #expect(try three.numbers() == [])
    try three.machine.delete(handles[1])
    #expect(try three.numbers() == [three.m[2]])
  }

  @Test func oneThatComesBackComesAloneBeforeThoseInFlight() throws {
    var three = try Three()
    let handles = try three.receive(2)
    try three.machine.hide(handles[0], for: 0)
    #expect(try three.numbers() == [three.m[0]])
  }

  @Test(arguments: 0..<3) func allCameBackBut(extended: Int) throws {
    var three = try Three()
    let handles = try three.receive(3, timeout: 10_000)
    try three.machine.hide(handles[extended], for: 60_000)
    try three.machine.pass(seconds: 11)
    #expect(try three.numbers() == Array(three.m[..<extended]))
  }

  @Test func aTimeoutOfZeroKeepsTheOrder() throws {
    var three = try Three()
    #expect(try three.numbers(timeout: 0) == three.m)
    #expect(try three.numbers(timeout: 0) == three.m)
  }

  @Test func aGroupThatWasEmptiedWorksAgain() throws {
    var three = try Three()
    for handle in try three.receive() { try three.machine.delete(handle) }
    let next = try #require(try three.machine.send(three.queue, group: 1))
    #expect(try three.numbers() == [next])
  }

  /// A delay of a message of its own holds its group.
  @Test func aDelayedMessageHoldsItsGroup() throws {
    var machine = Machine()
    let queue = try machine.create("q", fifo)
    let first = try #require(try machine.send(queue, group: 1, delay: 5000))
    let second = try #require(try machine.send(queue, group: 1))
    #expect(try machine.receive(queue).isEmpty)
    #expect(machine.state.counts(queue)?.delayed == 1)
    try machine.pass(seconds: 6)
    #expect(try machine.receive(queue).map(\.message) == [first, second])
  }

  @Test func aRunIsDrainedBeforeTheNextGroup() throws {
    var machine = Machine()
    let queue = try machine.create("q", fifo)
    var sent: [UInt64: [UInt64]] = [:]
    for group: UInt64 in [1, 2, 1, 1] {
      sent[group, default: []].append(try #require(try machine.send(queue, group: group)))
    }
    let found = try machine.receive(queue).map(\.message)
    #expect(found == (sent[1] ?? []) + (sent[2] ?? []))
  }

  @Test func groupsThatWereServedGoToTheBack() throws {
    var machine = Machine()
    let queue = try machine.create("q", fifo)
    for group: UInt64 in [1, 2] { try machine.send(queue, group: group) }
    let first = try machine.receive(queue, timeout: 1000).map(\.message)
    let third = try #require(try machine.send(queue, group: 3))
    try machine.pass(seconds: 2)
    #expect(try machine.receive(queue).map(\.message) == [third] + first)
  }

  @Test func messagesExpireInWhateverStateTheyAre() throws {
    var machine = Machine()
    let queue = try machine.create(
      "q",
      QueueSettingsChange {
        $0.retention = .seconds(60); $0.isFIFO = true
      })
    for group: UInt64 in [1, 1, 2] { try machine.send(queue, group: group) }
    _ = try machine.receive(queue, 1, timeout: 600_000)
    try machine.send(queue, group: 2, delay: 600_000)
    try machine.pass(seconds: 40)
    let last = try #require(try machine.send(queue, group: 1))
    try machine.pass(seconds: 30)
    #expect(machine.state.counts(queue)?.total == 1)
    #expect(try machine.receive(queue).map(\.message) == [last])
  }

  @Test func aMessageNeedsAGroup() throws {
    var machine = Machine()
    let queue = try machine.create("q", fifo)
    #expect(throws: Refusal.groupMissing) { try machine.send(queue) }
    #expect(throws: Refusal.kindIsFixed) {
      try machine.change(queue, QueueSettingsChange { $0.isFIFO = false })
    }
  }
}

@Suite struct Deduplicating {
  @Test func aRepetitionIsTheFirstSend() throws {
    var machine = Machine()
    let queue = try machine.create("q", fifo)
    let first = try #require(try machine.send(queue, group: 1, id: 7))
    #expect(try machine.send(queue, group: 1, id: 7, original: first) == nil)
    #expect(try machine.send(queue, group: 2, id: 7, original: first) == nil)
    #expect(try machine.send(queue, group: 1, id: 10) != nil, "another id with the same bucket")
    for handle in try machine.receive(queue) { try machine.delete(handle) }
    #expect(
      try machine.send(queue, group: 1, id: 7, original: first) == nil, "also when it is gone")
  }

  @Test func theWindowIsCountedFromTheFirst() throws {
    var machine = Machine()
    let queue = try machine.create("q", fifo)
    try machine.send(queue, group: 1, id: 7)
    try machine.pass(seconds: 200)
    #expect(try machine.send(queue, group: 1, id: 7) == nil)
    try machine.pass(seconds: 99)
    #expect(try machine.send(queue, group: 1, id: 7) == nil)
    try machine.pass(seconds: 1)
    #expect(try machine.send(queue, group: 1, id: 7) != nil)
  }

  @Test func aPurgeForgetsAndOtherQueuesDoNotKnow() throws {
    var machine = Machine()
    let (queue, other) = (try machine.create("q", fifo), try machine.create("r", fifo))
    try machine.send(queue, group: 1, id: 7)
    #expect(try machine.send(other, group: 1, id: 7) != nil)
    try machine.purge(queue)
    #expect(try machine.send(queue, group: 1, id: 7) != nil)
    #expect(try machine.send(other, group: 1, id: 7) == nil)
  }
}

/// Random histories of FIFO queues beside a plain model of their rule; now and then the state is
/// replaced by what its bytes give, or by a replay of all records.
@Suite struct GroupsBesideAModel {
  private struct Message {
    var number: UInt64
    var hiddenUntil: Int64
    var sent: Int64
    var token: UInt64?
    func isVisible(_ now: Int64) -> Bool { hiddenUntil <= now }
  }

  @Test(arguments: UInt64(0)..<20) func agree(seed: UInt64) throws {
    let random = StableRandom(seed: seed)
    var machine = Machine()
    var queue = try machine.create("q", fifo)
    _ = try machine.create("standard")
    var model: [UInt64: [Message]] = [:]
    var handles: [LeaseHandle] = []
    for step in 0..<400 {
      switch random.below(20) {
      case 0..<7:
        let group = UInt64(random.below(1 + random.below(12)))
        let delay: Int64 = random.chance(1, of: 8) ? Int64(random.below(20_000)) : 0
        let number = try #require(try machine.send(queue, group: group, delay: delay))
        model[group, default: []].append(
          Message(number: number, hiddenUntil: machine.now + delay, sent: machine.now))
      case 7..<12:
        let limit = 1 + random.below(10)
        let timeout = Int64(random.below(4) == 0 ? 0 : random.below(60_000))
        let runs = model.mapValues { $0.prefix { $0.isVisible(machine.now) }.map(\.number) }
        let found = try machine.receive(queue, limit, timeout: timeout)
        #expect(found.count == min(limit, runs.values.reduce(0) { $0 + $1.count }))
        var numbers = found.map(\.message)[...]
        while let first = numbers.first {
          let run = try #require(runs.values.first { $0.first == first }, "not a head")
          let part = numbers.prefix(run.count)
          #expect(Array(part) == Array(run.prefix(part.count)))
          numbers = numbers.dropFirst(part.count)
        }
        for (group, messages) in model {
          for (place, message) in messages.enumerated()
          where found.contains(where: { $0.message == message.number }) {
            model[group]?[place].hiddenUntil = machine.now + timeout
            model[group]?[place].token = found.first { $0.message == message.number }?.token
          }
        }
        handles += found
      case 12..<15:
        guard !handles.isEmpty else { continue }
        let handle = handles.remove(at: random.below(handles.count))
        let message = model.values.flatMap { $0 }.first { $0.number == handle.message }
        let isHeld =
          message.map { $0.hiddenUntil > machine.now && $0.token == handle.token } ?? true
        do {
          try machine.delete(handle)
          #expect(isHeld)
        } catch Refusal.leaseLost {
          #expect(!isHeld)
          continue
        }
        for group in model.keys { model[group]?.removeAll { $0.number == handle.message } }
      case 15:
        guard let handle = handles.last else { continue }
        let timeout = Int64(random.below(40_000))
        // The message may be gone.
        do { try machine.hide(handle, for: timeout) } catch is Refusal { continue }
        for (group, messages) in model {
          for (place, message) in messages.enumerated() where message.number == handle.message {
            model[group]?[place].hiddenUntil = machine.now + timeout
          }
        }
      case 16: try machine.pass(milliseconds: Int64(random.below(30_000)))
      case 17 where random.chance(1, of: 6):
        if random.chance(1, of: 2) {
          try machine.purge(queue)
        } else {
          try machine.remove(queue)
          queue = try machine.create("q", fifo)
        }
        model = [:]
        handles = []
      case 18:
        let read = try decodedState(encoded(machine.state))
        #expect(read.stateHash() == machine.state.stateHash())
        machine.state = read
        try machine.check()
      case 19 where random.chance(1, of: 4):
        var state = State()
        for logged in machine.log { _ = try machine.apply(logged, to: &state) }
        state.advance(to: machine.state.time)
        #expect(state.stateHash() == machine.state.stateHash(), "step \(step)")
      default: break
      }
      model = model.filter { !$0.value.isEmpty }
      let all = model.values.flatMap { $0 }
      let counts = try #require(machine.state.counts(queue))
      #expect(counts.total == all.count)
      #expect(counts.visible == all.filter { $0.isVisible(machine.now) }.count)
    }
  }
}
