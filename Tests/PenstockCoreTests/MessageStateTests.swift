// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import Testing

/// One test per rule of how a message moves between visible, delayed, leased and gone.
@Suite struct OrderOfReceives {
  @Test func oldestSendFirst() throws {
    var machine = Machine()
    let queue = try machine.create()
    let sent = try (0..<5).map { _ in try machine.send(queue) }
    #expect(try machine.receive(queue, 2).map(\.message) == Array(sent[..<2]))
    #expect(try machine.receive(queue).map(\.message) == Array(sent[2...]))
    #expect(try machine.receive(queue).isEmpty)
  }

  @Test func aRequeuedOlderMessageComesBeforeANewerOne() throws {
    var machine = Machine()
    let queue = try machine.create()
    let first = try machine.send(queue)
    let lease = try #require(try machine.receive(queue, 1).first)
    let second = try machine.send(queue)
    try machine.hide(lease, for: 0)
    #expect(try machine.receive(queue).map(\.message) == [first, second])
  }

  @Test func aDelayedMessageTakesItsPlaceByOrderOfSendWhenDue() throws {
    var machine = Machine()
    let queue = try machine.create()
    let delayed = try machine.send(queue, delay: 5000)
    let plain = try machine.send(queue)
    #expect(machine.counts(queue) == [1, 0, 1])
    try machine.pass(milliseconds: 4999)
    #expect(machine.state.candidates(queue, limit: 10).map(\.message) == [plain])
    try machine.pass(milliseconds: 1)
    #expect(machine.counts(queue) == [2, 0, 0])
    #expect(try machine.receive(queue).map(\.message) == [delayed, plain])
  }

  @Test func candidatesMergeNewAndReturnedOnesUpToTheLimit() throws {
    var machine = Machine()
    let queue = try machine.create()
    let sent = try (0..<6).map { _ in try machine.send(queue) }
    let leases = try machine.receive(queue, 4)
    for index in [3, 1] { try machine.hide(leases[index], for: 0) }
    let expected = [sent[1], sent[3], sent[4], sent[5]]
    for limit in 0...5 {
      let found = machine.state.candidates(queue, limit: limit).map(\.message)
      #expect(found == Array(expected.prefix(limit)))
      // Looking changes nothing.
      try machine.check()
    }
    #expect(machine.state.candidates(QueueID(99), limit: 5).isEmpty)
  }

  @Test func leasesThatEndTogetherComeBackInOrderOfSend() throws {
    var machine = Machine()
    let queue = try machine.create()
    let sent = try (0..<20).map { _ in try machine.send(queue) }
    for lease in try machine.receive(queue, 20).reversed() { try machine.hide(lease, for: 1000) }
    try machine.pass(seconds: 1)
    #expect(try machine.receive(queue, 20).map(\.message) == sent)
  }
}

@Suite struct DelayOfSends {
  @Test func theQueueDelaysWhatDoesNotSay() throws {
    var machine = Machine()
    let queue = try machine.create("q", .init { $0.delay = .seconds(3) })
    let late = try machine.send(queue)
    let now = try machine.send(queue, delay: 0)
    #expect(try machine.receive(queue).map(\.message) == [now])
    try machine.pass(seconds: 3)
    #expect(try machine.receive(queue).map(\.message) == [late])
  }

  @Test func aNewQueueDelayHoldsForNewMessagesOnly() throws {
    var machine = Machine()
    let queue = try machine.create("q", .init { $0.delay = .seconds(3) })
    try machine.send(queue)
    try machine.change(queue, .init { $0.delay = .seconds(100) })
    try machine.pass(seconds: 3)
    #expect(machine.counts(queue) == [1, 0, 0])
    try machine.send(queue)
    try machine.pass(seconds: 3)
    #expect(machine.counts(queue) == [1, 0, 1])
  }

  @Test func aDelayBeyondTheEndOfTimeIsHeldThere() throws {
    var machine = Machine()
    let queue = try machine.create("q", .init { $0.retention = .milliseconds(Int64.max) })
    try machine.send(queue, delay: .max)
    try machine.pass(seconds: 1_000_000_000)
    #expect(machine.counts(queue) == [0, 0, 1])
  }

  @Test func aSendLargerThanTheLimitIsRefused() throws {
    var machine = Machine()
    let queue = try machine.create("q", .init { $0.maximumMessageBytes = 10 })
    let id = MessageID(randomHigh: 1, randomLow: 1)
    #expect(throws: Refusal.messageTooLarge(limit: 10)) {
      try machine.state.decideSend(
        queue, messageID: id, size: 11, delay: nil, group: nil, deduplication: nil)
    }
    #expect(throws: Never.self) {
      try machine.state.decideSend(
        queue, messageID: id, size: 10, delay: nil, group: nil, deduplication: nil)
    }
  }
}

@Suite struct VisibilityOfLeases {
  @Test func aLeaseHidesUntilItsDeadline() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    _ = try machine.receive(queue, timeout: 1000)
    #expect(machine.counts(queue) == [0, 1, 0])
    try machine.pass(milliseconds: 999)
    #expect(try machine.receive(queue).isEmpty)
    try machine.pass(milliseconds: 1)
    #expect(machine.counts(queue) == [1, 0, 0])
    #expect(try machine.receive(queue).count == 1)
  }

  @Test func timeoutZeroDeliversCountsAndLeavesItVisible() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    let first = try #require(try machine.receive(queue, timeout: 0).first)
    #expect(machine.counts(queue) == [1, 0, 0])
    let candidate = try #require(machine.state.candidates(queue, limit: 1).first)
    #expect(machine.state.lease(candidate).receiveCount == 1)
    let second = try #require(try machine.receive(queue).first)
    #expect(second.token > first.token)
    #expect(machine.state.lease(candidate).receiveCount == 2)
  }

  @Test func receiveCountAndFirstReceiveTimeAreKept() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    let start = machine.now
    for round in UInt32(1)...4 {
      let candidate = try #require(machine.state.candidates(queue, limit: 1).first)
      _ = try machine.receive(queue, timeout: 1000)
      let lease = machine.state.lease(candidate)
      #expect(lease.receiveCount == round)
      #expect(lease.firstReceivedAt.milliseconds == start)
      try machine.pass(seconds: 1)
    }
  }

  @Test func aChangeCountsFromNow() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    let lease = try #require(try machine.receive(queue, timeout: 10_000).first)
    try machine.pass(seconds: 5)
    try machine.hide(lease, for: 2000)
    try machine.pass(milliseconds: 1999)
    #expect(machine.counts(queue) == [0, 1, 0])
    try machine.pass(milliseconds: 1)
    #expect(machine.counts(queue) == [1, 0, 0])
  }

  @Test func aChangeToZeroMakesItVisibleWithThatRecord() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    let lease = try #require(try machine.receive(queue).first)
    try machine.hide(lease, for: 0)
    #expect(machine.counts(queue) == [1, 0, 0])
  }

  @Test func aLeaseThatHasEndedCanHideAgain() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    let lease = try #require(try machine.receive(queue, timeout: 1000).first)
    try machine.pass(seconds: 2)
    #expect(machine.counts(queue) == [1, 0, 0])
    try machine.hide(lease, for: 3000)
    #expect(machine.counts(queue) == [0, 1, 0])
    try machine.pass(seconds: 3)
    #expect(machine.counts(queue) == [1, 0, 0])
  }

  @Test func anOlderHandleMovesTheNewerLease() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    let old = try #require(try machine.receive(queue, timeout: 0).first)
    _ = try machine.receive(queue)
    try machine.hide(old, for: 0)
    #expect(machine.counts(queue) == [1, 0, 0])
  }

  @Test func theTotalLimitCountsFromTheNewestReceive() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    let lease = try #require(try machine.receive(queue, timeout: 10_000).first)
    try machine.pass(seconds: 4)
    try machine.hide(lease, for: 6000, limit: 10_000)
    #expect(throws: Refusal.leaseLimitExceeded) {
      try machine.hide(lease, for: 6001, limit: 10_000)
    }
    try machine.hide(lease, for: 6001)
    // The next receive starts anew.
    try machine.hide(lease, for: 0)
    let next = try #require(try machine.receive(queue).first)
    try machine.hide(next, for: 10_000, limit: 10_000)
  }

  @Test func changesOfWhatIsGoneOrNeverReceivedAreRefused() throws {
    var machine = Machine()
    let queue = try machine.create()
    let other = try machine.create("other")
    let message = try machine.send(queue)
    let forged = LeaseHandle(queue: queue, slot: 0, message: message, token: 0)
    #expect(throws: Refusal.messageNotFound) { try machine.hide(forged, for: 1) }
    let lease = try #require(try machine.receive(queue).first)
    #expect(throws: Refusal.invalidHandle) {
      try machine.state.decideChangeVisibility(lease, of: other, timeout: 1, totalLimit: nil)
    }
    #expect(throws: Refusal.queueNotFound) {
      try machine.state.decideChangeVisibility(
        lease, of: QueueID(9), timeout: 1, totalLimit: nil)
    }
    try machine.delete(lease)
    #expect(throws: Refusal.messageNotFound) { try machine.hide(lease, for: 1) }
  }

  @Test func aDelayThatEndedIsNoReceive() throws {
    var machine = Machine()
    let queue = try machine.create()
    let message = try machine.send(queue, delay: 1000)
    let forged = LeaseHandle(queue: queue, slot: 0, message: message, token: 0)
    #expect(throws: Refusal.messageNotFound) { try machine.hide(forged, for: 1) }
    try machine.pass(seconds: 1)
    #expect(throws: Refusal.messageNotFound) { try machine.hide(forged, for: 1) }
  }
}

@Suite struct DeletionOfMessages {
  @Test func everyHandleOfAMessageDeletesIt() throws {
    var machine = Machine()
    let queue = try machine.create()
    // By the newest handle, by one whose lease has ended, by one that was followed by another.
    for round in 0..<3 {
      try machine.send(queue)
      let lease = try #require(try machine.receive(queue, timeout: 1000).first)
      if round > 0 { try machine.pass(seconds: 1) }
      if round > 1 { _ = try machine.receive(queue) }
      #expect(try machine.delete(lease))
      #expect(machine.counts(queue) == [0, 0, 0])
    }
  }

  @Test func deletedTwiceIsDoneOnce() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    let lease = try #require(try machine.receive(queue).first)
    #expect(try machine.delete(lease))
    #expect(try !machine.delete(lease))
  }

  @Test func anOldHandleDoesNotTouchTheNextMessageInItsPlace() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    let old = try #require(try machine.receive(queue).first)
    try machine.delete(old)
    try machine.send(queue)
    let new = try #require(try machine.receive(queue).first)
    #expect(new.slot == old.slot)
    #expect(try !machine.delete(old))
    #expect(throws: Refusal.messageNotFound) { try machine.hide(old, for: 0) }
    #expect(machine.counts(queue) == [0, 1, 0])
  }

  @Test func aHandleOfAnotherQueueIsRefused() throws {
    var machine = Machine()
    let queue = try machine.create()
    let other = try machine.create("other")
    try machine.send(queue)
    let lease = try #require(try machine.receive(queue).first)
    #expect(throws: Refusal.invalidHandle) {
      try machine.state.decideDelete(lease, from: other)
    }
    #expect(throws: Refusal.queueNotFound) {
      try machine.state.decideDelete(lease, from: QueueID(9))
    }
  }
}
