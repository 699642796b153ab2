// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

@Suite struct ReceivesThatWait {
  @Test func endWithASend() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let answer = queue.startReceive(10)
    #expect(!answer.isThere)
    try await queue.send("one")
    #expect(try await answer.value.texts == ["one"])
    #expect(try await queue.countsList == [0, 1, 0])
    try await store.close()
  }

  @Test func endWhenADelayIsOver() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send("late", delay: .seconds(5))
    let answer = queue.startReceive()
    bench.pass(.milliseconds(4999), store)
    #expect(try await queue.countsList == [0, 0, 1])
    #expect(!answer.isThere)
    bench.pass(.milliseconds(1), store)
    #expect(try await answer.value.texts == ["late"])
    try await store.close()
  }

  @Test func endWhenALeaseEnds() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send("again")
    let lease = try #require(try await queue.receive(visibilityTimeout: .seconds(5)).first)
    let answer = queue.startReceive()
    bench.pass(.seconds(5), store)
    let message = try #require(try await answer.value.first)
    #expect(message.id == lease.message.id)
    #expect(message.receiveCount == 2)
    #expect(message.handle.token > lease.message.handle.token)
    try await store.close()
  }

  @Test func endWhenAMessageIsReleased() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.send("back")
    let lease = try #require(try await queue.receive().first)
    let answer = queue.startReceive()
    #expect(!answer.isThere)
    try await lease.release()
    #expect(try await answer.value.texts == ["back"])
    try await store.close()
  }

  @Test func areServedInTheOrderInWhichTheyCame() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let answers = (0..<4).map { _ in queue.startReceive() }
    for (index, answer) in answers.enumerated() {
      try await queue.send("\(index)")
      #expect(try await answer.value.texts == ["\(index)"])
      #expect(answers[(index + 1)...].allSatisfy { !$0.isThere })
    }
    // What one send brings is shared out in the same order.
    let both = (0..<2).map { _ in queue.startReceive(2) }
    _ = try await queue.send(
      batch: (0..<3).map { SendEntry(MessageContent(body: Array("b\($0)".utf8))) })
    #expect(try await both[0].value.texts == ["b0", "b1"])
    #expect(try await both[1].value.texts == ["b2"])
    try await store.close()
  }

  @Test func endEmptyWhenTheTimeIsOver() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    let long = queue.startReceive(wait: .seconds(20))
    let short = queue.startReceive(wait: .seconds(3))
    bench.pass(.seconds(3), store)
    #expect(try await short.value.isEmpty)
    #expect(!long.isThere)
    bench.pass(.seconds(17), store)
    #expect(try await long.value.isEmpty)
    // What comes later finds nobody.
    try await queue.send("x")
    #expect(try await queue.countsList == [1, 0, 0])
    try await store.close()
  }

  @Test func zeroDoesNotWaitWhateverTheQueueSays() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.change(.init { $0.receiveWait = .seconds(20) })
    #expect(try await queue.receive(wait: .zero).isEmpty)
    try await store.close()
  }

  @Test func waitAsLongAsTheQueueSays() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.change(.init { $0.receiveWait = .seconds(7) })
    let answer = Answer { store.receive(ReceiveRequest(), from: queue.id, $0) }
    #expect(!answer.isThere)
    bench.pass(.seconds(7), store)
    #expect(try await answer.value.isEmpty)
    try await store.close()
  }

  @Test func endEmptyWhenCancelledAndTakeNothing() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let request = ReceiveRequest(wait: .seconds(20))
    var ticket: ReceiveTicket?
    let answer = Answer { ticket = store.receive(request, from: queue.id, $0) }
    store.cancel(try #require(ticket))
    #expect(try await answer.value.isEmpty)
    store.cancel(try #require(ticket))
    try await queue.send("x")
    #expect(try await queue.countsList == [1, 0, 0])
    #expect(answer.count == 1)
    try await store.close()
  }

  @Test func aCancelledTaskTakesNothing() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    // The cancellation comes before, while or after the receive begins to wait.
    for _ in 0..<50 {
      let task = Task { try await queue.receive(wait: .seconds(20)).count }
      await Task.yield()
      task.cancel()
      #expect(try await task.value == 0)
    }
    try await queue.send("x")
    #expect(try await queue.countsList == [1, 0, 0])
    try await store.close()
  }

  @Test func endEmptyWhenTheQueueIsDeleted() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let other = try await store.queue("other")
    let answers = (0..<3).map { _ in queue.startReceive() }
    let unconcerned = other.startReceive()
    try await queue.remove()
    for answer in answers { #expect(try await answer.value.isEmpty) }
    #expect(!unconcerned.isThere)
    #expect(await queue.startReceive().code == .queueNotFound)
    try await store.close()
    #expect(try await unconcerned.value.isEmpty)
  }

  @Test func endEmptyWhenTheStoreIsClosed() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let answers = (0..<3).map { _ in queue.startReceive() }
    try await store.close()
    for answer in answers { #expect(try await answer.value.isEmpty) }
    #expect(await queue.startReceive().code == .closed)
  }

  @Test func outliveAPurge() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let answer = queue.startReceive()
    try await queue.purge()
    #expect(!answer.isThere)
    try await queue.send("x")
    #expect(try await answer.value.texts == ["x"])
    try await store.close()
  }

  @Test func shareAMessageThatStaysVisible() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let answers = (0..<3).map { _ in queue.startReceive(visibilityTimeout: .zero) }
    try await queue.send("x")
    for (index, answer) in answers.enumerated() {
      #expect(try await answer.value.first?.receiveCount == index + 1)
    }
    #expect(try await queue.countsList == [1, 0, 0])
    try await store.close()
  }

  @Test func neverGetAMessageWhoseRetentionIsOver() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    try await queue.change(.init { $0.retention = .seconds(60) })
    try await queue.send("old")
    _ = try await queue.receive(visibilityTimeout: .seconds(600))
    let answer = queue.startReceive(wait: .seconds(100))
    bench.pass(.seconds(60), store)
    try await eventually { try await queue.counts.total == 0 }
    #expect(!answer.isThere)
    bench.pass(.seconds(40), store)
    #expect(try await answer.value.isEmpty)
    try await store.close()
  }

  @Test(arguments: [0, -1, 1001]) func takeFromOneToTheMaximum(count: Int) async throws {
    let (store, queue) = try await Bench().openWithQueue()
    #expect(await queue.startReceive(count).code == .invalidArgument)
    try await store.close()
  }
}

@Suite struct ReceivesWithoutRoomInTheLog {
  /// Opens a store with a message whose next segment cannot be prepared before the gate opens.
  private func withoutRoom(_ body: (Store, Queue, Gate) async throws -> Void) async throws {
    var bench = Bench()
    let disk = GatedFileSystem()
    bench.fileSystem = disk
    var (store, queue) = try await bench.openWithQueue()
    try await queue.send("x")
    _ = try await store.queue("empty")
    try await store.close()
    for name in try disk.list("/store") where name.hasSuffix(".next") {
      disk.base.erase("/store/\(name)")
    }
    disk.gate.close([.write], pathSuffix: ".partial")
    (store, queue) = try await bench.openWithQueue()
    try await body(store, queue, disk.gate)
    disk.gate.open()
    try await store.close()
  }

  @Test func aShortOneWaitsForRoomNotForAMessage() async throws {
    try await withoutRoom { (store, queue, gate) async throws in
      let empty = try #require(store.existingQueue("empty"))
      #expect(try await empty.receive(wait: .zero).isEmpty)
      let answer = queue.startReceive(wait: .zero)
      store.timeHasMoved()
      await gate.arrival()
      #expect(!answer.isThere)
      gate.open()
      #expect(try await answer.value.texts == ["x"])
    }
  }

  @Test func aShortOneThatFindsNothingLeftEndsEmpty() async throws {
    try await withoutRoom { (store, queue, gate) async throws in
      let answers = (0..<3).map { _ in queue.startReceive(wait: .zero) }
      await gate.arrival()
      gate.open()
      #expect(try await answers[0].value.texts == ["x"])
      #expect(try await answers[1].value.isEmpty)
      #expect(try await answers[2].value.isEmpty)
    }
  }

  @Test func oneThatIsCancelledTakesNothing() async throws {
    try await withoutRoom { (store, queue, gate) async throws in
      var ticket: ReceiveTicket?
      let answer = Answer { ticket = store.receive(ReceiveRequest(), from: queue.id, $0) }
      store.cancel(try #require(ticket))
      #expect(try await answer.value.isEmpty)
      gate.open()
      try await queue.send("y")
      #expect(try await queue.countsList == [2, 0, 0])
    }
  }
}
