// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import PenstockTesting
import Testing

/// A standard queue whose messages name groups, or do not.
private struct Fair {
  var machine = Machine()
  let queue: QueueID

  init(isFair: Bool = true) throws {
    queue = try machine.create("q", .init { $0.isFair = isFair })
  }

  mutating func send(_ group: UInt64, _ count: Int = 1) throws -> [UInt64] {
    try (0..<count).map { _ in
      group == 0
        ? try machine.send(queue) : try #require(try machine.send(queue, group: group))
    }
  }

  mutating func receive(_ limit: Int = 1, timeout: Int64 = 30_000) throws -> [LeaseHandle] {
    try machine.receive(queue, limit, timeout: timeout)
  }

  /// Receives one message, holds it for a while and deletes it.
  mutating func work(milliseconds: Int64) throws -> UInt64 {
    let handle = try #require(try receive().first)
    try machine.pass(milliseconds: milliseconds)
    try machine.delete(handle)
    return handle.message
  }

  /// The state is the same when it was read from its bytes, or made by a replay.
  func check() throws {
    let read = try decodedState(encoded(machine.state))
    #expect(read.stateHash() == machine.state.stateHash())
    #expect(read.brokenInvariant() == nil)
    #expect(encoded(read) == encoded(machine.state))
    #expect(try machine.replayed().stateHash() == machine.state.stateHash())
  }
}

@Suite struct FairQueues {
  @Test func whoHoldsTooManyWaitsForOthers() throws {
    var fair = try Fair()
    let noisy = try fair.send(1, 100)
    _ = try fair.receive(40)
    let quiet = try fair.send(2, 2)
    #expect(try fair.receive(3).map(\.message) == quiet + [noisy[40]])
  }

  /// Under thirty in flight, or not above a tenth, is no noise.
  @Test func fewInFlightAreNoNoise() throws {
    var fair = try Fair()
    let first = try fair.send(1, 100)
    _ = try fair.receive(29)
    let second = try fair.send(2, 1)
    #expect(try fair.receive(1).map(\.message) == [first[29]])
    #expect(try fair.receive(1).map(\.message) == second)
  }

  /// One consumer holds one message at a time; what tells is for how long.
  @Test func whoTookTheTimeWaitsForOthers() throws {
    var fair = try Fair()
    let noisy = try fair.send(1, 100)
    for _ in 0..<5 { _ = try fair.work(milliseconds: 1000) }
    let quiet = try fair.send(2, 1) + fair.send(0, 1)
    #expect(try fair.work(milliseconds: 1) == quiet[0])
    #expect(try fair.work(milliseconds: 1) == quiet[1])
    #expect(try fair.work(milliseconds: 1) == noisy[5])
  }

  @Test func whoWasIdleForFiveMinutesIsQuiet() throws {
    var fair = try Fair()
    let first = try fair.send(1, 10)
    _ = try fair.work(milliseconds: 1000)
    try fair.machine.pass(seconds: 301)
    _ = try fair.send(2, 1)
    #expect(try fair.work(milliseconds: 1) == first[1])
  }

  @Test func ofNoisyOnesTheOneWithFewestInFlightComesFirst() throws {
    var fair = try Fair()
    _ = try fair.send(1, 60)
    _ = try fair.receive(50)
    let second = try fair.send(2, 60)
    _ = try fair.receive(40)
    #expect(try fair.receive(1).map(\.message) == [second[40]])
  }

  @Test func withoutAGroupEachIsItsOwn() throws {
    var fair = try Fair()
    let all = try fair.send(0, 100)
    _ = try fair.receive(50)
    let other = try fair.send(2, 1)
    #expect(try fair.receive(51).map(\.message) == all[50...] + other)
  }

  @Test func withinATenantTheOldestComesFirstAlsoAfterItCameBack() throws {
    var fair = try Fair()
    let all = try fair.send(1, 5)
    let handles = try fair.receive(3)
    try fair.machine.hide(handles[1], for: 0)
    try fair.machine.hide(handles[0], for: 0)
    #expect(try fair.receive(4).map(\.message) == [all[0], all[1], all[3], all[4]])
  }

  @Test func aQueueThatIsNotFairKeepsTheOrderOfSends() throws {
    var fair = try Fair(isFair: false)
    let noisy = try fair.send(1, 100)
    _ = try fair.receive(40)
    _ = try fair.send(2, 2)
    #expect(try fair.receive(2).map(\.message) == [noisy[40], noisy[41]])
  }

  /// Parked messages that name no group come before a noisy tenant's, and behind older ones.
  @Test func parkedMessagesAreQuiet() throws {
    var fair = try Fair()
    fair.machine.state.window = 2
    _ = try fair.send(1, 40)
    _ = try fair.receive(35)
    let plain = try fair.send(0, 4)
    let later = try fair.send(3, 1)
    #expect(try fair.receive(10).map(\.message) == Array(plain[..<2]))
    let draw = try #require(fair.machine.state.decideDraw(fair.queue))
    let waiting = fair.machine.parked.map(\.message)
    try fair.machine.apply(try #require(fair.machine.state.decideDrawn(draw, waiting)))
    #expect(try fair.receive(3).map(\.message) == plain[2...] + later)
  }

  @Test func theMetricsNameWhoIsNoisy() throws {
    var fair = try Fair()
    #expect(fair.machine.state.groupMetrics(fair.queue) == nil)
    _ = try fair.send(1, 60)
    _ = try fair.receive(35)
    _ = try fair.send(2, 3) + fair.send(0, 4)
    _ = try fair.receive(5)
    try fair.machine.pass(seconds: 5)
    let metrics = try #require(fair.machine.state.groupMetrics(fair.queue))
    #expect([metrics.count, metrics.inFlight, metrics.noisy] == [2, 2, 1])
    #expect([metrics.quiet.visible, metrics.quiet.leased] == [2, 5])
    #expect(fair.machine.counts(fair.queue) == [27, 40, 0])
    #expect(metrics.quietOldestAge == .seconds(5))
    _ = try fair.receive(2)
    let later = try #require(fair.machine.state.groupMetrics(fair.queue))
    #expect(later.quietOldestSince == nil && later.quiet.visible == 0)
  }

  @Test func lookingChangesNothing() throws {
    var fair = try Fair()
    _ = try fair.send(1, 50) + fair.send(2, 5) + fair.send(0, 5)
    _ = try fair.receive(35)
    let before = fair.machine.state.stateHash()
    let candidates = fair.machine.state.candidates(fair.queue, limit: 25)
    #expect(candidates.count == 25 && fair.machine.state.stateHash() == before)
    try fair.machine.check()
    #expect(fair.machine.state.candidates(fair.queue, limit: 25) == candidates)
  }

  /// Also while what was purged waits to be freed.
  @Test(arguments: UInt64(1)...12) func isTheSameAfterARestart(seed: UInt64) throws {
    var fair = try Fair()
    let random = StableRandom(seed: seed)
    try fair.machine.change(fair.queue, .init { $0.retention = .seconds(300) })
    var handles: [LeaseHandle] = []
    for _ in 0..<120 {
      switch random.below(9) {
      case 0, 1, 2: _ = try fair.send(UInt64(random.below(6)), 1 + random.below(12))
      case 3, 4: handles += try fair.receive(1 + random.below(20), timeout: 20_000)
      case 5 where !handles.isEmpty:
        try fair.machine.delete(handles.remove(at: random.below(handles.count)))
      case 6 where random.chance(1, of: 6): try fair.machine.purge(fair.queue)
      case 7:
        try fair.machine.send(fair.queue, group: UInt64(1 + random.below(5)), delay: 5000)
      default: try fair.machine.pass(milliseconds: Int64(random.below(40_000)))
      }
      try fair.check()
    }
  }

  /// The wait of a quiet tenant's messages beside a flood, with four consumers of a message a
  /// second each.
  @Test(arguments: [true, false]) func aFloodHoldsUpOnlyItself(isFair: Bool) throws {
    var fair = try Fair(isFair: isFair)
    _ = try fair.send(1, 400)
    var sentAt: [UInt64: Int64] = [:]
    var longest: Int64 = 0
    for second in 0..<60 {
      if second % 10 == 0 { sentAt[try fair.send(2)[0]] = fair.machine.now }
      let handles = try fair.receive(4)
      for handle in handles {
        guard let sent = sentAt.removeValue(forKey: handle.message) else { continue }
        longest = max(longest, fair.machine.now - sent)
      }
      try fair.machine.pass(seconds: 1)
      for handle in handles { try fair.machine.delete(handle) }
    }
    // The flood takes 100 seconds.
    #expect(isFair ? sentAt.isEmpty && longest <= 1000 : sentAt.count == 6)
  }
}
