// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import Testing

/// A queue with two messages of each kind: visible, leased, delayed, returned.
private func mixed(
  _ machine: inout Machine, _ name: String = "q"
) throws -> (queue: QueueID, leases: [LeaseHandle]) {
  let queue = try machine.create(name)
  for _ in 0..<4 { try machine.send(queue) }
  let leases = try machine.receive(queue, timeout: 60_000)
  for lease in leases[2...] { try machine.hide(lease, for: 0) }
  for _ in 0..<2 { try machine.send(queue, delay: 30_000) }
  for _ in 0..<2 { try machine.send(queue) }
  #expect(machine.counts(queue) == [4, 2, 2])
  return (queue, leases)
}

@Suite struct PurgeOfAQueue {
  @Test func takesMessagesInEveryState() throws {
    var machine = Machine()
    let (queue, leases) = try mixed(&machine)
    try machine.purge(queue)
    #expect(machine.counts(queue) == [0, 0, 0])
    #expect(try machine.receive(queue).isEmpty)
    for lease in leases {
      #expect(try !machine.delete(lease))
      #expect(throws: Refusal.messageNotFound) { try machine.hide(lease, for: 0) }
    }
    // What is left of them has no say when its time comes.
    try machine.pass(seconds: 100)
    #expect(machine.counts(queue) == [0, 0, 0])
  }

  @Test func leavesWhatIsSentLater() throws {
    var machine = Machine()
    let (queue, _) = try mixed(&machine)
    try machine.purge(queue)
    let visible = try machine.send(queue)
    let delayed = try machine.send(queue, delay: 1000)
    #expect(machine.counts(queue) == [1, 0, 1])
    try machine.pass(seconds: 1)
    #expect(try machine.receive(queue).map(\.message) == [visible, delayed])
  }

  @Test func leavesOtherQueuesAlone() throws {
    var machine = Machine()
    let (queue, _) = try mixed(&machine)
    let (other, leases) = try mixed(&machine, "other")
    try machine.purge(queue)
    #expect(machine.counts(other) == [4, 2, 2])
    #expect(try machine.delete(leases[0]))
  }

  @Test func thePlacesAreUsedAgain() throws {
    var machine = Machine()
    let queue = try machine.create()
    for _ in 0..<100 { try machine.send(queue) }
    try machine.purge(queue)
    #expect(machine.state.messageCount == 100)
    for _ in 0..<10 { try machine.send(queue) }
    #expect(machine.state.messageCount == 10)
    let handles = try machine.receive(queue)
    #expect(handles.allSatisfy { $0.slot < 100 })
    #expect(handles.count == 10)
  }
}

@Suite struct DeletionOfAQueue {
  @Test func takesNameAndMessages() throws {
    var machine = Machine()
    let (queue, leases) = try mixed(&machine)
    try machine.remove(queue)
    #expect(machine.state.queue(named: "q") == nil)
    #expect(machine.state.describe(queue) == nil)
    #expect(machine.state.queueCount == 0)
    #expect(machine.state.candidates(queue, limit: 10).isEmpty)
    #expect(throws: Refusal.queueNotFound) { try machine.delete(leases[0]) }
    #expect(throws: Refusal.queueNotFound) { try machine.send(queue) }
    #expect(throws: Refusal.queueNotFound) { try machine.remove(queue) }
    #expect(throws: Refusal.queueNotFound) { try machine.purge(queue) }
    #expect(throws: Refusal.queueNotFound) { try machine.change(queue, .init()) }
    try machine.pass(seconds: 1_000_000)
  }

  @Test func handlesOfTheOldQueueAreDeadInTheNewOneOfItsName() throws {
    var machine = Machine()
    let (queue, leases) = try mixed(&machine)
    try machine.remove(queue)
    let again = try machine.create("q")
    #expect(again > queue)
    #expect(machine.counts(again) == [0, 0, 0])
    for _ in 0..<8 { try machine.send(again) }
    for lease in leases {
      #expect(throws: Refusal.queueNotFound) { try machine.delete(lease) }
      #expect(throws: Refusal.invalidHandle) {
        try machine.state.decideDelete(lease, from: again)
      }
      // Nor does it help to say that it is of the new queue.
      var forged = lease
      forged.queue = again
      #expect(try !machine.delete(forged))
    }
    #expect(machine.counts(again) == [8, 0, 0])
  }

  @Test func messagesOfTheDeadNeverAppearInOtherQueues() throws {
    var machine = Machine()
    for round in 0..<5 {
      let (queue, _) = try mixed(&machine, "q\(round)")
      try machine.remove(queue)
      try machine.pass(seconds: 20)
    }
    let queue = try machine.create("last")
    let sent = try (0..<40).map { _ in try machine.send(queue) }
    try machine.pass(seconds: 100)
    #expect(try machine.receive(queue, 100).map(\.message) == sent)
    #expect(machine.state.messageCount == 40)
  }
}

@Suite struct CreationAndChangeOfQueues {
  @Test func createdAgainWithTheSameSettingsIsTheSameQueue() throws {
    var machine = Machine()
    let queue = try machine.create("q", .init { $0.delay = .seconds(1) })
    #expect(try machine.state.decideCreate("q", .init()) == nil)
    #expect(try machine.state.decideCreate("q", .init { $0.delay = .seconds(1) }) == nil)
    #expect(try machine.create("q") == queue)
  }

  @Test(arguments: [
    (
      QueueSettingsChange {
        $0.visibilityTimeout = .zero
        $0.delay = .seconds(1)
      }, QueueSetting.visibilityTimeout
    ),
    (
      QueueSettingsChange {
        $0.delay = .seconds(1)
        $0.retention = .seconds(1)
      }, QueueSetting.delay
    ),
    (
      QueueSettingsChange {
        $0.maximumMessageBytes = 1
        $0.receiveWait = .seconds(1)
      }, QueueSetting.maximumMessageBytes
    ),
    (
      QueueSettingsChange {
        $0.retention = .seconds(1)
        $0.receiveWait = .seconds(1)
      }, QueueSetting.retention
    ),
    (QueueSettingsChange { $0.receiveWait = .seconds(1) }, QueueSetting.receiveWait),
  ]) func theFirstSettingThatDiffersIsNamed(change: QueueSettingsChange, setting: QueueSetting)
    throws
  {
    var machine = Machine()
    _ = try machine.create("q")
    #expect(throws: Refusal.queueExists(setting: setting)) {
      try machine.state.decideCreate("q", change)
    }
  }

  @Test func aChangeKeepsWhatItDoesNotName() throws {
    var machine = Machine()
    let queue = try machine.create("q", .init { $0.delay = .seconds(1) })
    try machine.pass(seconds: 7)
    try machine.change(queue, .init { $0.visibilityTimeout = .seconds(5) })
    let description = try #require(machine.state.describe(queue))
    #expect(description.settings.delay == .seconds(1))
    #expect(description.settings.visibilityTimeout == .seconds(5))
    #expect(description.changedAt.milliseconds == description.createdAt.milliseconds + 7000)
  }

  @Test func tagsAloneAreNoChangeOfAQueue() throws {
    var machine = Machine()
    let queue = try machine.create("q")
    try machine.pass(seconds: 7)
    try machine.change(queue, .init { $0.tags = ["a": "b"] })
    let tagged = try #require(machine.state.describe(queue))
    #expect(tagged.settings.tags == ["a": "b"] && tagged.changedAt == tagged.createdAt)
    try machine.change(
      queue,
      .init {
        $0.tags = [:]
        $0.policy = "p"
      })
    let changed = try #require(machine.state.describe(queue))
    #expect(changed.changedAt > changed.createdAt && changed.settings.tags.isEmpty)
  }

  @Test func namesAreListedInOrderFromAPrefixAndAPlace() throws {
    var machine = Machine()
    for name in ["b", "ab", "a", "ac", "abc"] { _ = try machine.create(name) }
    let state = machine.state
    func names(_ prefix: String, _ after: String? = nil, _ limit: Int = 9) -> [String] {
      state.queueNames(prefix: prefix, after: after, limit: limit)
    }
    #expect(names("") == ["a", "ab", "abc", "ac", "b"])
    #expect(names("a") == ["a", "ab", "abc", "ac"])
    #expect(names("a", "ab") == ["abc", "ac"])
    #expect(names("ab", "a", 1) == ["ab"])
    #expect(names("", "abb") == ["abc", "ac", "b"])
    #expect(names("", nil, 0) == [])
    #expect(names("c") == [])
  }
}

@Suite struct RetentionOfMessages {
  private let minute = QueueSettingsChange { $0.retention = .seconds(60) }

  @Test func endsForWhatNobodyHolds() throws {
    var machine = Machine()
    let queue = try machine.create("q", minute)
    try machine.send(queue)
    try machine.pass(seconds: 20)
    let second = try machine.send(queue)
    try machine.pass(milliseconds: 39_999)
    #expect(machine.counts(queue) == [2, 0, 0])
    try machine.pass(milliseconds: 1)
    #expect(machine.counts(queue) == [1, 0, 0])
    #expect(try machine.receive(queue).map(\.message) == [second])
  }

  @Test func countsFromTheNextWholeSecondSoThatItNeverEndsEarly() throws {
    var machine = Machine(at: 1_700_000_000_001)
    let queue = try machine.create("q", minute)
    try machine.send(queue)
    try machine.pass(milliseconds: 60_998)
    #expect(machine.counts(queue) == [1, 0, 0])
    try machine.pass(milliseconds: 1)
    #expect(machine.counts(queue) == [0, 0, 0])
  }

  @Test func endsForLeasedDelayedAndReturnedOnes() throws {
    var machine = Machine()
    let queue = try machine.create("q", minute)
    for _ in 0..<2 { try machine.send(queue) }
    let leases = try machine.receive(queue, timeout: 600_000)
    try machine.hide(leases[1], for: 0)
    try machine.send(queue, delay: 600_000)
    #expect(machine.counts(queue) == [1, 1, 1])
    try machine.pass(seconds: 60)
    #expect(machine.counts(queue) == [0, 0, 0])
    // Deleting what has expired is a success; hiding it is not.
    #expect(try !machine.delete(leases[0]))
    #expect(throws: Refusal.messageNotFound) { try machine.hide(leases[0], for: 0) }
  }

  @Test func anExtendedLeaseDoesNotOutliveIt() throws {
    var machine = Machine()
    let queue = try machine.create("q", minute)
    try machine.send(queue)
    let lease = try #require(try machine.receive(queue, timeout: 1000).first)
    try machine.hide(lease, for: 600_000)
    try machine.pass(seconds: 60)
    #expect(machine.counts(queue) == [0, 0, 0])
  }

  @Test func anExpiredLeaseCannotBeMovedBeforeItIsCleared() throws {
    var machine = Machine()
    let queue = try machine.create("q", minute)
    try machine.send(queue)
    let lease = try #require(try machine.receive(queue).first)
    machine.advanceOnly(seconds: 60)
    #expect(throws: Refusal.messageNotFound) { try machine.hide(lease, for: 1000) }
  }

  @Test func shortenedEndsForEveryStateAtOnce() throws {
    var machine = Machine()
    let queue = try machine.create()
    for _ in 0..<4 { try machine.send(queue) }
    let leases = try machine.receive(queue, 2, timeout: 600_000)
    try machine.hide(leases[1], for: 0)
    try machine.send(queue, delay: 600_000)
    try machine.pass(seconds: 90)
    let young = try machine.send(queue)
    #expect(machine.counts(queue) == [4, 1, 1])
    try machine.change(queue, minute)
    #expect(machine.counts(queue) == [1, 0, 0])
    #expect(try machine.receive(queue).map(\.message) == [young])
  }

  @Test func shortenedEndsLeasesWhenTheNewTimeComes() throws {
    var machine = Machine()
    let queue = try machine.create()
    try machine.send(queue)
    try machine.send(queue, delay: 600_000)
    _ = try machine.receive(queue, timeout: 600_000)
    try machine.change(queue, minute)
    try machine.pass(milliseconds: 59_999)
    #expect(machine.counts(queue) == [0, 1, 1])
    try machine.pass(milliseconds: 1)
    #expect(machine.counts(queue) == [0, 0, 0])
  }

  @Test func lengthenedLeavesLeasesUntilTheirDeadline() throws {
    var machine = Machine()
    let queue = try machine.create("q", minute)
    try machine.send(queue)
    let delayed = try machine.send(queue, delay: 90_000)
    _ = try machine.receive(queue, timeout: 100_000)
    try machine.change(queue, .init { $0.retention = .seconds(3600) })
    try machine.pass(seconds: 60)
    #expect(machine.counts(queue) == [0, 1, 1])
    #expect(try machine.receive(queue).isEmpty)
    try machine.pass(seconds: 30)
    #expect(try machine.receive(queue).map(\.message) == [delayed])
    try machine.pass(seconds: 10)
    #expect(machine.counts(queue) == [1, 1, 0])
  }

  @Test func endsInTimeForAnOlderMessageThatCameBackLate() throws {
    var machine = Machine()
    let queue = try machine.create("q", minute)
    try machine.send(queue, delay: 50_000)
    try machine.pass(seconds: 30)
    // The look at the queue is set by this one, and the older one comes back before it.
    try machine.send(queue)
    try machine.pass(seconds: 30)
    #expect(machine.counts(queue) == [1, 0, 0])
    try machine.pass(seconds: 30)
    #expect(machine.counts(queue) == [0, 0, 0])
  }

  @Test func oneRecordRemovesALimitedNumber() throws {
    var machine = Machine()
    let queue = try machine.create("q", minute)
    for _ in 0..<25 { try machine.send(queue) }
    machine.advanceOnly(seconds: 60)
    var records = 0
    while let entry = machine.state.nextExpired(limit: 10) {
      try machine.apply(entry)
      records += 1
    }
    #expect(records == 3)
    #expect(machine.counts(queue) == [0, 0, 0])
    #expect(machine.state.nextExpiry == nil)
  }

  @Test func manyQueuesExpireEachInItsTime() throws {
    var machine = Machine()
    var queues: [QueueID] = []
    for index in 0..<20 {
      let seconds = (index * 7) % 20 + 1
      queues.append(try machine.create("q\(index)", .init { $0.retention = .seconds(seconds) }))
      try machine.send(queues[index])
    }
    for second in 1...20 {
      try machine.pass(seconds: 1)
      for (index, queue) in queues.enumerated() {
        let lives = (index * 7) % 20 + 1 > second
        #expect(machine.counts(queue) == [lives ? 1 : 0, 0, 0])
      }
    }
  }
}
