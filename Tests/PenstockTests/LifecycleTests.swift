// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Synchronization
import Testing

@Suite struct OneStorePerDirectory {
  @Test(arguments: Disk.allCases) func aSecondOpenIsRefused(disk: Disk) async throws {
    try await Bench.on(disk) { bench in
      let store = try await bench.open()
      #expect(await code { _ = try await bench.open() } == .storeInUse)
      // The refused one changed nothing.
      _ = try await store.queue("q")
      try await store.close()
      let again = try await bench.open()
      #expect(again.queueNames() == ["q"])
      try await again.close()
    }
  }

  @Test(arguments: Disk.allCases) func aDroppedStoreReleasesItsDirectory(disk: Disk) async throws {
    try await Bench.on(disk) { bench in
      var dropped: Store? = try await bench.open()
      _ = try await dropped?.queue("q").send("x")
      dropped = nil
      var again: Store?
      try await eventually {
        do throws(PenstockError) {
          again = try await bench.open()
          return true
        } catch {
          #expect(error.code == .storeInUse)
          return false
        }
      }
      let store = try #require(again)
      #expect(store.recovery.end == .closed)
      #expect(store.recovery.messages == 1)
      try await store.close()
    }
  }

  @Test func aDirectoryOfOtherThingsIsRefusedAndLeftAlone() async throws {
    let disk = SimulatedFileSystem()
    try disk.createDirectory("/store")
    disk.replace("/store/notes.txt", with: [1, 2, 3])
    let bench = Bench(disk)
    #expect(await code { _ = try await bench.open() } == .storeNotFound)
    #expect(disk.contents(of: "/store/notes.txt") == [1, 2, 3])
    // The refusal released the directory.
    disk.erase("/store/notes.txt")
    try await bench.open().close()
  }
}

@Suite struct Closing {
  @Test func twiceIsOnce() async throws {
    let store = try await Bench().open()
    async let first: Void = store.close()
    async let second: Void = store.close()
    try await first
    try await second
    try await store.close()
    #expect(store.isClosed)
  }

  @Test func operationsAfterwardsAreRefused() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    try await queue.send("x")
    let lease = try #require(try await queue.receive().first)
    try await store.close()
    #expect(await queue.startSend("y").code == .closed)
    #expect(await queue.startReceive().code == .closed)
    #expect(await code { try await lease.delete() } == .closed)
    #expect(await code { try await queue.purge() } == .closed)
    #expect(await code { _ = try await store.queue("other") } == .closed)
    #expect(PenstockError(.closed, "").family == .storeFailed)
    #expect(try await queue.countsList == [0, 1, 0])
  }

  /// Operations on several threads while the store closes: each is answered once, with success or
  /// `.closed`, and what succeeded is there afterwards. Many rounds, as the threads meet by chance.
  @Test func answersWhatIsUnderWay() async throws {
    for round in 0..<40 {
      let bench = Bench(segmentSize: 64 << 10, seed: UInt64(round))
      var (store, queue) = try await bench.openWithQueue()
      let (closing, target) = (store, queue)
      let answers = await withTaskGroup { group in
        for task in 0..<4 {
          group.addTask {
            (0..<12).map { target.startSend("\(task) \($0)") }
          }
        }
        group.addTask {
          for _ in 0..<round { await Task.yield() }
          closing.close { _ in }
          return []
        }
        var all: [Answer<[Result<SendReceipt, PenstockError>]>] = []
        for await answers in group { all += answers }
        return all
      }
      var sent: Set<MessageID> = []
      for answer in answers {
        do throws(PenstockError) {
          sent.insert(try await answer.value[0].get().id)
        } catch {
          #expect(error.code == .closed)
        }
      }
      try await store.close()
      #expect(answers.allSatisfy { $0.count == 1 })
      (store, queue) = try await bench.openWithQueue()
      #expect(store.recovery.end == .closed)
      let found = try await queue.receive(maximum: 100).map(\.message.id)
      #expect(Set(found) == sent && found.count == sent.count)
      try await store.close()
    }
  }

  @Test func finishesReceivesThatTookMessages() async throws {
    let disk = GatedFileSystem()
    var bench = Bench()
    bench.fileSystem = disk
    let (store, queue) = try await bench.openWithQueue()
    try await queue.send("x")
    disk.gate.close([.write], pathSuffix: ".next")
    let receive = queue.startReceive()
    await disk.gate.arrival()
    let close = Answer { store.close($0) }
    disk.gate.open()
    #expect(try await receive.value.texts == ["x"])
    try await close.value
  }
}

@Suite struct EmbeddingAQueue {
  @Test func leasesComeOneAfterTheOtherUntilCancelled() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let done = Mutex<[String]>([])
    let third = Answer<Void> { completion in
      store.receive(ReceiveRequest(), from: queue.id) { _ in completion(.success(())) }
    }
    try await third.value
    let (worked, progress) = AsyncStream.makeStream(of: String.self)
    let worker = Task {
      for try await lease in queue.leases() {
        try await lease.delete()
        progress.yield(lease.text)
      }
      progress.finish()
    }
    for text in ["a", "b", "c"] { try await queue.send(text) }
    for await text in worked {
      let count = done.withLock {
        $0.append(text)
        return $0.count
      }
      if count == 3 { worker.cancel() }
    }
    try await worker.value
    #expect(done.withLock { $0 } == ["a", "b", "c"])
    #expect(try await queue.counts.total == 0)
    try await queue.send("d")
    #expect(try await queue.countsList == [1, 0, 0])
    try await store.close()
  }

  @Test func theLoopEndsWhenTheStoreIsClosed() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let worker = Task {
      var count = 0
      for try await _ in queue.leases() { count += 1 }
      return count
    }
    try await queue.send("x")
    try await eventually { try await queue.countsList == [0, 1, 0] }
    try await store.close()
    #expect(try await worker.value == 1)
  }

  @Test func theLoopThrowsWhenTheQueueIsDeleted() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let worker = Task { () -> PenstockError.Code? in
      await code { for try await _ in queue.leases() {} }
    }
    try await queue.remove()
    #expect(await worker.value == .queueNotFound)
    try await store.close()
  }

  @Test func aLeaseIsExtendedReleasedAndDeleted() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    let id = try await queue.send("x")
    var lease = try #require(try await queue.receive(visibilityTimeout: .seconds(5)).first)
    #expect(lease.message.id == id)
    #expect(lease.text == "x")
    try await lease.extend(to: .seconds(60))
    bench.pass(.seconds(59), store)
    #expect(try await queue.countsList == [0, 1, 0])
    try await lease.release()
    #expect(try await queue.countsList == [1, 0, 0])
    lease = try #require(try await queue.receive().first)
    #expect(lease.message.receiveCount == 2)
    try await lease.delete()
    try await lease.delete()
    #expect(await code { try await lease.release() } == .messageNotFound)
    try await store.close()
  }

  @Test func queuesAreFoundByName() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    #expect(store.existingQueue("q")?.id == queue.id)
    #expect(store.existingQueue("none") == nil)
    do throws(PenstockError) {
      _ = try await store.queue("q", QueueSettings(delay: .seconds(1)))
      Issue.record("another setting was taken")
    } catch {
      #expect(error.code == .queueExists)
      #expect(error.setting == .delay)
      #expect(error.family == .rejected)
    }
    #expect(await code { _ = try await store.queue("") } == .invalidArgument)
    let long = String(repeating: "x", count: 257)
    #expect(await code { _ = try await store.queue(long) } == .invalidArgument)
    let negative = QueueSettings(delay: .seconds(-1))
    #expect(await code { _ = try await store.queue("n", negative) } == .invalidArgument)
    try await queue.purge()
    try await store.close()
  }

  @Test func anOldQueueIsDeadWhenAnotherHasItsName() async throws {
    let (store, old) = try await Bench().openWithQueue()
    try await old.send("x")
    let lease = try #require(try await old.receive().first)
    try await old.remove()
    let new = try await store.queue("q")
    try await new.send("y")
    #expect(await code { try await old.send("z") } == .queueNotFound)
    #expect(await code { try await lease.delete() } == .queueNotFound)
    let answer = Answer { store.delete([lease.message.handle], from: new.id, $0) }
    let results = try await answer.value
    #expect(throws: PenstockError.self) { try results[0].get() }
    #expect(try await new.countsList == [1, 0, 0])
    try await store.close()
  }
}
