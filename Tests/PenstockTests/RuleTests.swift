// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

// Rules of queues by the part of the API that they are of, in process. Docs/conformance.md has all
// rules and their tests, those of other files too.

extension Queue {
  /// Texts of what a receive gets now.
  fileprivate func texts(_ maximum: Int = 10, hidden: Duration? = nil) async throws -> [String] {
    try await receive(maximum: maximum, wait: .zero, visibilityTimeout: hidden).map(\.text)
  }

  /// Sends with ids of a FIFO queue.
  @discardableResult
  fileprivate func sendOne(
    _ text: String, _ group: String = "g", _ id: String? = nil
  ) async throws -> SendReceipt {
    let content = MessageContent(body: Array(text.utf8), groupID: group, deduplicationID: id)
    return try await send(batch: [SendEntry(content)])[0].get()
  }

  /// A receive that may be repeated.
  fileprivate func attempt(
    _ name: String, maximum: Int = 10, hidden: Duration? = nil
  ) async throws -> [ReceivedMessage] {
    let request = ReceiveRequest(
      maximumMessages: maximum, wait: .zero, visibilityTimeout: hidden, attemptID: name)
    return try await Answer { store.receive(request, from: id, $0) }.value
  }
}

/// A bench with an open store and a FIFO queue in it.
private func withFIFO(
  _ settings: (inout QueueSettings) -> Void = { _ in },
  _ body: (Bench, Store, Penstock.Queue) async throws -> Void
) async throws {
  let bench = Bench()
  let store = try await bench.open()
  let queue = try await store.queue("fifo", QueueSettings(isFIFO: true, with: settings))
  try await body(bench, store, queue)
  #expect(store.brokenInvariant == nil)
  try await store.close()
}

@Suite struct RulesOfQueues {
  @Test("3.1 messages that wait in their group count as visible")
  func waitingInAGroupIsVisible() async throws {
    try await withFIFO { _, _, queue in
      for group in ["a", "b", "c"] {
        for _ in 0..<2 { try await queue.sendOne("m", group) }
      }
      for _ in 0..<2 { #expect(try await queue.texts(1).count == 1) }
      #expect(try await queue.countsList == [4, 2, 0])
    }
  }

  @Test("3.4 a delay of a FIFO queue moves with it, counted from the send")
  func theDelayOfAFIFOQueueIsRetroactive() async throws {
    try await withFIFO {
      $0.delay = .seconds(100)
    } _: { bench, store, queue in
      try await queue.sendOne("m")
      let own = MessageContent(body: [1], groupID: "own")
      _ = try await queue.send(batch: [SendEntry(own, delay: .seconds(100))])
      bench.pass(.seconds(30), store)
      try await queue.change(.init { $0.delay = .seconds(200) })
      bench.pass(.seconds(169), store)
      // What had a delay of its own keeps it.
      #expect(try await queue.countsList == [1, 0, 1])
      try await queue.change(.init { $0.delay = .seconds(199) })
      #expect(try await queue.countsList == [2, 0, 0])
    }
  }

  @Test("3.4 a longer delay of a FIFO queue does not hide what is visible: a difference")
  func aLongerDelayHidesNothingAgain() async throws {
    try await withFIFO { _, _, queue in
      try await queue.sendOne("m")
      try await queue.change(.init { $0.delay = .seconds(900) })
      #expect(try await queue.countsList == [1, 0, 0])
    }
  }

  @Test("3.4 a visibility timeout holds for later receives, a size for later sends")
  func timeoutsAndSizesHoldForWhatIsLater() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    for text in ["first", "second"] { try await queue.send(text) }
    #expect(try await queue.texts(1) == ["first"])
    try await queue.change(
      .init {
        $0.visibilityTimeout = .zero
        $0.maximumMessageBytes = 1
      })
    #expect(try await queue.texts() == ["second"])
    #expect(try await queue.countsList == [1, 1, 0])
    #expect(await code { try await queue.send("xx") } == .messageTooLarge)
    try await store.close()
  }

  @Test("3.4 deduplication by content holds for later sends")
  func deduplicationByContentHoldsForLaterSends() async throws {
    try await withFIFO { _, _, queue in
      let first = try await queue.sendOne("same")
      #expect(try await queue.sendOne("same").id != first.id)
      try await queue.change(.init { $0.deduplicatesByContent = true })
      let next = try await queue.sendOne("same")
      #expect(!next.isDuplicate)
      #expect(try await queue.sendOne("same").id == next.id)
    }
  }

  @Test("4.11 a FIFO queue at its limit gives nothing, and no error")
  func aFIFOQueueAtItsLimitGivesNothing() async throws {
    try await withFIFO {
      $0.maximumLeased = 2
    } _: { _, _, queue in
      for group in ["a", "b", "c"] { try await queue.sendOne(group, group) }
      let leases = try await queue.receive(maximum: 10, wait: .zero)
      #expect(leases.map(\.text) == ["a", "b"])
      #expect(try await queue.texts().isEmpty)
      let waiting = queue.startReceive()
      try await leases[1].delete()
      #expect(try await waiting.value.texts == ["c"])
    }
  }

  @Test("7.1 a purge takes messages in every state, and none after it")
  func aPurgeTakesEveryState() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    for text in ["leased", "returned", "visible"] { try await queue.send(text) }
    try await queue.send("delayed", delay: .seconds(5))
    let lease = try #require(try await queue.receive(wait: .zero).first)
    #expect(try await queue.texts(1, hidden: .zero) == ["returned"])
    #expect(try await queue.countsList == [2, 1, 1])
    try await queue.purge()
    try await queue.send("after")
    #expect(try await queue.countsList == [1, 0, 0])
    bench.pass(.seconds(60), store)
    #expect(try await queue.texts() == ["after"])
    try await lease.delete()
    #expect(await code { try await lease.extend(to: .zero) } == .messageNotFound)
    try await store.close()
  }

  @Test("7.2 what deleting a queue takes, a queue of its name knows nothing of")
  func anotherQueueOfTheNameKnowsNothing() async throws {
    try await withFIFO { _, store, queue in
      let first = try await queue.sendOne("m", "g", "id")
      let lease = try #require(try await queue.receive(wait: .zero).first)
      try await queue.remove()
      let next = try await store.queue("fifo", QueueSettings(isFIFO: true))
      #expect(try await next.countsList == [0, 0, 0])
      let again = try await next.sendOne("m", "g", "id")
      #expect(!again.isDuplicate && again.lsn > first.lsn)
      let refused = await code { try await next.delete([lease.message.handle])[0].get() }
      #expect(refused == .invalidHandle)
    }
  }
}

@Suite struct RulesOfFIFOHandles {
  enum End: CaseIterable { case time, givenBack, receivedAgain }

  @Test("4.5 FIFO: a lease that has ended neither deletes nor hides", arguments: End.allCases)
  func aLeaseThatHasEndedIsLost(end: End) async throws {
    try await withFIFO { bench, store, queue in
      try await queue.sendOne("m")
      let lease = try #require(try await queue.receive(wait: .zero).first)
      if end == .time { bench.pass(.seconds(30), store) } else { try await lease.release() }
      if end == .receivedAgain { #expect(try await queue.texts().count == 1) }
      let before = try await queue.countsList
      #expect(await code { try await lease.delete() } == .leaseLost)
      #expect(await code { try await lease.extend(to: .seconds(9)) } == .leaseLost)
      #expect(try await queue.countsList == before)
    }
  }

  @Test("4.5 FIFO: a lease that was extended in time is held until its later end")
  func anExtendedLeaseIsHeld() async throws {
    try await withFIFO { bench, store, queue in
      try await queue.sendOne("m")
      let lease = try #require(try await queue.receive(wait: .zero).first)
      try await lease.extend(to: .seconds(60))
      bench.pass(.seconds(59), store)
      try await lease.delete()
      // Deleting it once more, now that it is gone, is a success.
      try await lease.delete()
      #expect(try await queue.countsList == [0, 0, 0])
    }
  }
}

@Suite struct RulesOfDeduplication {
  @Test("5.4 the scope is the queue, or the group", arguments: [false, true])
  func theScope(isGroup: Bool) async throws {
    try await withFIFO {
      $0.deduplicatesByGroup = isGroup
    } _: { _, _, queue in
      let first = try await queue.sendOne("m", "g", "id")
      #expect(try await queue.sendOne("n", "g", "id").id == first.id)
      #expect(try await queue.sendOne("n", "h", "id").isDuplicate == !isGroup)
    }
  }

  @Test("3.4 in process a changed scope holds for later sends, and ids may be any text")
  func aChangedScopeHoldsForLaterSends() async throws {
    try await withFIFO { _, _, queue in
      let long = String(repeating: "ü ", count: 200)
      let first = try await queue.sendOne("m", long, long)
      #expect(try await queue.sendOne("m", "h", long).id == first.id)
      try await queue.change(.init { $0.deduplicatesByGroup = true })
      let next = try await queue.sendOne("m", "h", long)
      #expect(next.id != first.id)
      #expect(try await queue.sendOne("m", "h", long).id == next.id)
    }
  }

  @Test("5.4 an id that is given wins over the content")
  func aGivenIDWins() async throws {
    try await withFIFO {
      $0.deduplicatesByContent = true
    } _: { _, _, queue in
      let first = try await queue.sendOne("same")
      #expect(try await queue.sendOne("same").id == first.id)
      #expect(try await queue.sendOne("same", "g", "mine").id != first.id)
      #expect(try await queue.sendOne("other", "g", "mine").isDuplicate)
    }
  }

  enum Fate: CaseIterable { case received, deleted, moved }

  @Test("5.4 a send is remembered for its window, whatever became of it", arguments: Fate.allCases)
  func aSendIsRemembered(fate: Fate) async throws {
    try await withFIFO { _, store, queue in
      _ = try await store.queue("dead", QueueSettings(isFIFO: true))
      try await queue.change(
        .init {
          $0.deadLetterQueue = "dead"
          $0.maximumReceives = 1
        })
      let first = try await queue.sendOne("m", "g", "id")
      let hidden: Duration = fate == .moved ? .zero : .seconds(30)
      let lease = try #require(
        try await queue.receive(wait: .zero, visibilityTimeout: hidden).first)
      if fate == .deleted { try await lease.delete() }
      if fate == .moved { #expect(try await queue.texts().isEmpty) }
      let again = try await queue.sendOne("m", "g", "id")
      #expect(again.isDuplicate && again.id == first.id && again.lsn == first.lsn)
    }
  }

  @Test("5.4 moves neither ask nor fill the memory of their target")
  func movesDoNotCount() async throws {
    try await withFIFO { _, store, queue in
      let dead = try await store.queue("dead", QueueSettings(isFIFO: true))
      try await queue.change(
        .init {
          $0.deadLetterQueue = "dead"
          $0.maximumReceives = 1
        })
      try await dead.sendOne("there", "g", "known")
      try await queue.sendOne("moved", "g", "known")
      try await queue.sendOne("moved too", "h", "new")
      _ = try await queue.texts(hidden: .zero)
      #expect(try await queue.texts().isEmpty)
      #expect(try await dead.countsList == [3, 0, 0])
      #expect(try await !dead.sendOne("sent", "i", "new").isDuplicate)
    }
  }
}

@Suite struct RulesOfAttempts {
  @Test("5.6 the same attempt gives the same answer, for five minutes")
  func theSameAttemptGivesTheSameAnswer() async throws {
    try await withFIFO { bench, store, queue in
      for text in ["1", "2"] { try await queue.sendOne(text) }
      let first = try await queue.attempt("a", hidden: .seconds(600))
      bench.pass(.seconds(200), store)
      let again = try await queue.attempt("a", hidden: .seconds(600))
      #expect(again.map(\.handle) == first.map(\.handle))
      #expect(again.map(\.receiveCount) == [1, 1])
      #expect(again[0].leaseEndsAt.milliseconds == first[0].leaseEndsAt.milliseconds + 200_000)
      #expect(try await queue.attempt("b").isEmpty)
      bench.pass(.seconds(99), store)
      #expect(try await queue.attempt("a", hidden: .seconds(600)).count == 2)
      // Five minutes after its first use it is a new one, and the group is in flight.
      bench.pass(.seconds(1), store)
      #expect(try await queue.attempt("a").isEmpty)
    }
  }

  enum Change: CaseIterable { case delete, extend, end }

  @Test("5.6 an attempt is over when something was done to a message", arguments: Change.allCases)
  func anAttemptIsOver(change: Change) async throws {
    try await withFIFO { bench, store, queue in
      for text in ["1", "2"] { try await queue.sendOne(text) }
      let handle = try await queue.attempt("a")[1].handle
      switch change {
      case .delete: try await queue.delete([handle])[0].get()
      case .extend:
        let longer = VisibilityChange(handle: handle, timeout: .seconds(60))
        try await Answer { store.changeVisibility([longer], of: queue.id, $0) }.value[0].get()
      case .end: bench.pass(.seconds(30), store)
      }
      #expect(await code { _ = try await queue.attempt("a") } == .attemptOver)
    }
  }
}

@Suite struct RulesOfDeadLetters {
  private func pair(
    _ bench: Bench, receives: Int = 1, delay: Duration = .zero
  ) async throws -> (Store, Penstock.Queue, Penstock.Queue) {
    let store = try await bench.open()
    let dead = try await store.queue("dead", QueueSettings(delay: delay))
    let queue = try await store.queue(
      "q",
      QueueSettings {
        $0.deadLetterQueue = "dead"
        $0.maximumReceives = receives
      })
    return (store, queue, dead)
  }

  @Test("6.2 a receive past the maximum moves the message", arguments: [1, 3])
  func aReceivePastTheMaximumMoves(receives: Int) async throws {
    let (store, queue, dead) = try await pair(Bench(), receives: receives)
    try await queue.send("m")
    for _ in 0..<receives { #expect(try await queue.texts(hidden: .zero) == ["m"]) }
    #expect(try await queue.countsList == [1, 0, 0])
    #expect(try await queue.texts().isEmpty)
    let lease = try #require(try await dead.receive(wait: .zero).first)
    #expect(lease.message.receiveCount == receives + 1)
    try await store.close()
  }

  @Test("6.2 neither the end of a lease nor a delete moves anything")
  func nothingElseMoves() async throws {
    let bench = Bench()
    let (store, queue, dead) = try await pair(bench)
    for text in ["ends", "deleted"] { try await queue.send(text) }
    let leases = try await queue.receive(maximum: 2, wait: .zero)
    bench.pass(.seconds(30), store)
    try await leases[1].delete()
    #expect(try await queue.countsList == [1, 0, 0])
    #expect(try await dead.countsList == [0, 0, 0])
    try await store.close()
  }

  @Test("6.2 counts of before count, and stay without a policy")
  func countsOfBeforeCount() async throws {
    let (store, queue, dead) = try await pair(Bench(), receives: 5)
    try await queue.send("m")
    for _ in 0..<3 { _ = try await queue.texts(hidden: .zero) }
    try await queue.change(.init { $0.maximumReceives = 2 })
    try await queue.change(
      .init {
        $0.deadLetterQueue = ""
        $0.maximumReceives = 0
      })
    let lease = try #require(try await queue.receive(wait: .zero).first)
    #expect(lease.message.receiveCount == 4)
    try await lease.release()
    try await queue.change(
      .init {
        $0.deadLetterQueue = "dead"
        $0.maximumReceives = 2
      })
    #expect(try await queue.texts().isEmpty)
    #expect(try await dead.countsList == [1, 0, 0])
    try await store.close()
  }

  @Test("6.2 without its dead-letter queue a message is delivered")
  func withoutItsDeadLetterQueueAMessageIsDelivered() async throws {
    let (store, queue, dead) = try await pair(Bench())
    try await queue.send("m")
    try await dead.remove()
    for _ in 0..<3 { #expect(try await queue.texts(hidden: .zero) == ["m"]) }
    let again = try await store.queue("dead")
    #expect(try await queue.texts().isEmpty)
    #expect(try await again.countsList == [1, 0, 0])
    try await store.close()
  }

  @Test("6.4 the delay of the dead-letter queue does not hide what is moved there")
  func theDelayOfTheDeadLettersDoesNotCount() async throws {
    let (store, queue, dead) = try await pair(Bench(), delay: .seconds(900))
    try await queue.send("m")
    for _ in 0..<2 { _ = try await queue.texts(hidden: .zero) }
    #expect(try await dead.countsList == [1, 0, 0])
    try await store.close()
  }
}
