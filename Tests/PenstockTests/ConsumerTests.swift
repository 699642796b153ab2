// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Synchronization
import Testing

/// What a handler throws.
private struct Refused: Error {}

/// What handlers did, in order.
private final class Journal: Sendable {
  private let entries = Mutex<[String]>([])
  private let atWork = Mutex((now: 0, most: 0))

  var all: [String] { entries.withLock { $0 } }
  var most: Int { atWork.withLock { $0.most } }
  var now: Int { atWork.withLock { $0.now } }

  func note(_ entry: String) { entries.withLock { $0.append(entry) } }

  func begin() {
    atWork.withLock { atWork in
      atWork.now += 1
      atWork.most = max(atWork.most, atWork.now)
    }
  }

  func end() { atWork.withLock { $0.now -= 1 } }
}

/// A queue in a store on a simulated machine: time passes only when nothing else can happen, so no
/// test waits for it.
private struct Scene: Sendable {
  let simulation: Simulation
  let store: Store
  let queue: Queue
  let journal = Journal()

  /// Runs `body` with several seeds: tasks and the store's threads meet in many ways.
  static func play(
    _ settings: QueueSettings = QueueSettings(), recentBytes: Int = 4 << 20,
    seeds: ClosedRange<UInt64> = 1...12,
    _ body: @escaping @Sendable (Scene) async throws -> Void
  ) throws {
    for seed in seeds {
      let simulation = Simulation(seed: seed)
      try simulation.run {
        var options = StoreOptions()
        options.segmentSize = 64 << 10
        options.recentBytes = recentBytes
        let store = try simulation.open(at: "/store", options: options)
        let queue = try await store.queue("q", settings)
        try await body(Scene(simulation: simulation, store: store, queue: queue))
        try await store.close()
      }
      simulation.end()
    }
  }

  /// Runs `body` while messages are consumed, cancels the consumer, and lets it drain.
  func consuming(
    _ limit: Int = 16, drainLimit: Duration? = nil,
    _ handler: @escaping @Sendable (Lease) async throws -> Void,
    _ body: @escaping @Sendable () async throws -> Void
  ) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask {
        try await queue.consume(maxConcurrent: limit, drainLimit: drainLimit, handler)
      }
      try await body()
      group.cancelAll()
      try await group.waitForAll()
    }
  }

  func send(_ texts: [String], group: String? = nil) async throws {
    let entries = texts.map { text in
      SendEntry(
        MessageContent(
          body: Array(text.utf8), groupID: group, deduplicationID: group.map { _ in text })
      )
    }
    for result in try await queue.send(batch: entries) { _ = try result.get() }
  }

  func sleep(_ duration: Duration) async throws { try await simulation.clock.sleep(for: duration) }

  /// Lets simulated time pass until it is so.
  func until(_ isMet: @Sendable () async throws -> Bool) async throws {
    var pause = 1
    while try await !isMet() {
      try await sleep(.milliseconds(pause))
      pause = min(1000, pause * 2)
    }
  }

  var seconds: Int64 { store.now.milliseconds / 1000 }
}

@Suite struct ConsumerTests {
  // MARK: Concurrency

  @Test func noMoreAreAtWorkOrLeasedThanThereAreHandlers() throws {
    try Scene.play { scene in
      try await scene.send((0..<30).map(String.init))
      try await scene.consuming(4) { lease in
        scene.journal.begin()
        let counts = try await scene.queue.counts
        #expect(counts.leased <= 4)
        try await scene.sleep(.milliseconds(lease.body.count * 100))
        scene.journal.note(lease.text)
        scene.journal.end()
      } _: {
        try await scene.until { try await scene.queue.counts.total == 0 }
      }
      #expect(scene.journal.most == 4)
      #expect(Set(scene.journal.all).count == 30 && scene.journal.all.count == 30)
    }
  }

  @Test func oneHandlerGetsThemInOrder() throws {
    try Scene.play { scene in
      try await scene.send(["a", "b", "c"])
      try await scene.consuming(1) { lease in
        scene.journal.note(lease.text)
      } _: {
        try await scene.until { try await scene.queue.counts.total == 0 }
        try await scene.send(["d"])
        try await scene.until { try await scene.queue.counts.total == 0 }
      }
      #expect(scene.journal.all == ["a", "b", "c", "d"])
    }
  }

  /// The same on the threads of the machine.
  @Test func everyMessageIsHandledOnceOnRealThreads() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let journal = Journal()
    for batch in 0..<10 {
      _ = try await queue.send(
        batch: (0..<50).map { SendEntry(MessageContent(body: Array("\(batch) \($0)".utf8))) })
    }
    let (handled, progress) = AsyncStream.makeStream(of: String.self)
    let worker = Task {
      try await queue.consume(maxConcurrent: 8) { lease in
        journal.begin()
        await Task.yield()
        journal.end()
        progress.yield(lease.text)
      }
    }
    var texts: Set<String> = []
    for await text in handled {
      #expect(texts.insert(text).inserted)
      if texts.count == 500 { break }
    }
    worker.cancel()
    try await worker.value
    #expect(journal.most <= 8)
    #expect(try await queue.counts.total == 0)
    try await store.close()
  }

  @Test func twoStoresInOneProcessAreConsumedSideBySide() throws {
    try Scene.play { scene in
      let other = try scene.simulation.open(at: "/other")
      let queue = try await other.queue("q")
      for number in 0..<5 { try await queue.send("other \(number)") }
      try await scene.send((0..<5).map { "first \($0)" })
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          try await queue.consume { lease in scene.journal.note(lease.text) }
        }
        try await scene.consuming { lease in
          scene.journal.note(lease.text)
        } _: {
          try await scene.until { scene.journal.all.count == 10 }
        }
        group.cancelAll()
        try await group.waitForAll()
      }
      #expect(scene.journal.all.count { $0.hasPrefix("other") } == 5)
      #expect(try await queue.counts.total + scene.queue.counts.total == 0)
      try await other.close()
    }
  }

  // MARK: Leases

  @Test func aHandlerThatTakesLongKeepsItsLease() throws {
    try Scene.play { scene in
      try await scene.send(["long"])
      try await scene.consuming { lease in
        #expect(lease.attempt == 1)
        #expect(lease.deadline.milliseconds > scene.store.now.milliseconds + 29_000)
        try await scene.sleep(.seconds(600))
        scene.journal.note("done")
      } _: {
        try await scene.until { try await scene.queue.counts.leased == 1 }
        // Nobody else gets it for as long as it takes.
        #expect(try await scene.queue.receive(wait: .seconds(590)).isEmpty)
        try await scene.until { try await scene.queue.counts.total == 0 }
      }
      #expect(scene.journal.all == ["done"])
    }
  }

  /// How a lease is lost while the handler has it.
  enum Loss: CaseIterable { case givenToAnother, deleted, purged, storeGone }

  @Test(arguments: Loss.allCases) func aLostLeaseCancelsAndDoesNotDelete(_ loss: Loss) throws {
    try Scene.play { scene in
      try await scene.send(["x"])
      let taken = Mutex<Lease?>(nil)
      let began = scene.seconds
      try await scene.consuming(1) { lease in
        taken.withLock { $0 = lease }
        do { try await scene.sleep(.seconds(3600)) } catch {}
        #expect(Task.isCancelled)
        scene.journal.note("cancelled")
      } _: {
        try await scene.until { taken.withLock { $0 != nil } }
        let lease = try #require(taken.withLock { $0 })
        switch loss {
        case .givenToAnother:
          // Whoever has the handle may do that; so may a consumer which lost the lease before.
          let other = scene.queue
          async let received = other.receive(wait: .seconds(20), visibilityTimeout: .seconds(900))
          try await lease.release()
          #expect(try await received.first?.attempt == 2)
        case .deleted: try await lease.delete()
        case .purged: try await scene.queue.purge()
        case .storeGone: scene.simulation.kill()
        }
        try await scene.until { scene.journal.all == ["cancelled"] }
      }
      switch loss {
      case .givenToAnother: #expect(try await scene.queue.countsList == [0, 1, 0])
      case .deleted, .purged: #expect(try await scene.queue.countsList == [0, 0, 0])
      case .storeGone:
        // It could not be extended: the handler ends when its lease does.
        #expect((29...31).contains(scene.seconds - began))
        let again = try scene.simulation.open(at: "/store")
        #expect(try await again.queue("q").counts.total == 1)
        try await again.close()
      }
    }
  }

  /// The handler returns before anybody could tell it.
  @Test func aMessageThatWasGivenBackMeanwhileIsNotDeleted() throws {
    try Scene.play { scene in
      try await scene.send(["x"])
      try await scene.consuming(1) { lease in
        scene.journal.note("attempt \(lease.attempt)")
        if lease.attempt < 3 { try await lease.release() }
      } _: {
        try await scene.until { try await scene.queue.counts.total == 0 }
      }
      #expect(scene.journal.all == ["attempt 1", "attempt 2", "attempt 3"])
    }
  }

  // MARK: Failures

  @Test func whatIsThrownGivesBackWithABackoff() throws {
    try Scene.play(seeds: 1...4) { scene in
      try await scene.send(["x"])
      let began = scene.store.now.milliseconds
      try await scene.consuming { lease in
        let time = (scene.store.now.milliseconds - began) / 1000
        scene.journal.note("\(lease.attempt) after \(time) s")
        if lease.attempt < 13 { throw Refused() }
      } _: {
        try await scene.until { try await scene.queue.counts.total == 0 }
      }
      var expected = ["1 after 0 s"]
      var time = 0
      for (index, delay) in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].enumerated() {
        time += delay
        expected.append("\(index + 2) after \(time) s")
      }
      #expect(scene.journal.all == expected)
    }
  }

  @Test func theDelayIsWhatTheCallerSays() throws {
    try Scene.play { scene in
      try await scene.send(["x"])
      let began = scene.seconds
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          try await scene.queue.consume { lease, error in
            #expect(error is Refused)
            return .seconds(40 * lease.attempt)
          } _: { lease in
            scene.journal.note("\(scene.seconds - began)")
            if lease.attempt < 3 { throw Refused() }
          }
        }
        try await scene.until { try await scene.queue.counts.total == 0 }
        group.cancelAll()
        try await group.waitForAll()
      }
      #expect(scene.journal.all == ["0", "40", "120"])
    }
  }

  @Test func anErrorOfTheStoreIsThrownAfterTheDrain() throws {
    try Scene.play { scene in
      try await scene.send(["x"])
      let thrown = await code {
        try await scene.queue.consume(maxConcurrent: 2) { lease in
          try await scene.queue.remove()
          do { try await scene.sleep(.seconds(5)) } catch {}  // Its lease may be missed by then.
          scene.journal.note("done")
        }
      }
      #expect(thrown == .queueNotFound)
      #expect(scene.journal.all == ["done"])
    }
  }

  @Test func limitsAndTimeoutsBelowTheLeastAreRefused() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    #expect(await code { try await queue.consume(maxConcurrent: 0) { _ in } } == .invalidArgument)
    #expect(
      await code { try await queue.consume(visibilityTimeout: .zero) { _ in } } == .invalidArgument)
    try await queue.remove()
    #expect(await code { try await queue.consume { _ in } } == .queueNotFound)
    try await store.close()
  }

  @Test func unreadableMessagesArePassedOver() throws {
    try Scene.play(recentBytes: 0) { scene in
      try await scene.send(["bad", "good"])
      // All that was written is in the newest segment; the first message's text comes once.
      let files = try scene.simulation.disk.list("/store").filter { $0.hasSuffix(".seg") }
      for file in files {
        let path = "/store/\(file)"
        guard var bytes = scene.simulation.disk.contents(of: path) else { continue }
        guard let place = bytes.firstRange(of: Array("bad".utf8))?.lowerBound else { continue }
        bytes[place] ^= 1
        scene.simulation.disk.replace(path, with: bytes)
      }
      try await scene.consuming(1) { lease in
        scene.journal.note(lease.text)
      } _: {
        try await scene.until { try await scene.queue.counts.total == 0 }
      }
      #expect(scene.journal.all == ["good"])
      #expect(try await scene.queue.describe().setAside == 1)
    }
  }

  // MARK: Draining

  @Test func cancellationLetsHandlersFinish() throws {
    try Scene.play { scene in
      try await scene.send(["a", "b", "c"])
      try await scene.consuming(3) { lease in
        scene.journal.begin()
        // Longer than the lease, which is kept meanwhile.
        try await scene.sleep(.seconds(100))
        #expect(!Task.isCancelled)
        scene.journal.note(lease.text)
      } _: {
        try await scene.until { scene.journal.now == 3 }
        try await scene.send(["late"])
      }
      #expect(scene.journal.all.sorted() == ["a", "b", "c"])
      #expect(try await scene.queue.countsList == [1, 0, 0])
    }
  }

  /// How a handler takes its cancellation.
  enum Manner: CaseIterable { case throwing, returning }

  @Test(arguments: Manner.allCases) func aDrainHasALimit(_ manner: Manner) throws {
    try Scene.play { scene in
      try await scene.send(["a", "b", "c"])
      let began = scene.seconds
      try await scene.consuming(2, drainLimit: .seconds(5)) { lease in
        scene.journal.begin()
        if lease.text == "a" { return try await scene.sleep(.seconds(3)) }
        do { try await scene.sleep(.seconds(100)) } catch {
          scene.journal.note("\(lease.text) after \(scene.seconds - began) s")
          if manner == .throwing { throw error }
        }
      } _: {
        try await scene.until { scene.journal.now == 2 }
      }
      #expect(scene.journal.all == ["b after 5 s"])
      // What was cancelled was not deleted, and is visible at once.
      #expect(try await scene.queue.countsList == [2, 0, 0])
    }
  }

  @Test func aTaskThatIsCancelledAlreadyHandlesNothing() throws {
    try Scene.play { scene in
      try await scene.send(["x"])
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.cancelAll()
        group.addTask { try await scene.queue.consume { _ in scene.journal.note("x") } }
        try await group.waitForAll()
      }
      #expect(scene.journal.all.isEmpty)
      #expect(try await scene.queue.countsList == [1, 0, 0])
    }
  }

  @Test func closingTheStoreEndsALoopThatWaits() throws {
    try Scene.play { scene in
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await scene.queue.consume { _ in } }
        try await scene.sleep(.seconds(1))
        let before = scene.seconds
        try await scene.store.close()
        try await group.waitForAll()
        #expect(scene.seconds - before <= 1)
      }
    }
  }

  @Test(arguments: [1, 2]) func closingTheStoreLetsHandlersFinish(_ limit: Int) throws {
    try Scene.play { scene in
      try await scene.send(["x"])
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          try await scene.queue.consume(maxConcurrent: limit) { lease in
            scene.journal.begin()
            try await scene.sleep(.seconds(20))
            scene.journal.note(lease.text)
          }
        }
        try await scene.until { scene.journal.now == 1 }
        try await scene.store.close()
        try await group.waitForAll()
      }
      #expect(scene.journal.all == ["x"])
      // A closed store takes no delete: the message comes again.
      let again = try scene.simulation.open(at: "/store")
      let queue = try await again.queue("q")
      #expect(try await queue.receive(wait: .seconds(20)).first?.attempt == 2)
      try await again.close()
    }
  }

  /// Nobody receives while all handlers are at work, and so hears of the closing.
  @Test func closingTheStoreIsNoticedWhileAllHandlersAreAtWork() throws {
    try Scene.play { scene in
      try await scene.send(["x"])
      let began = scene.seconds
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          try await scene.queue.consume(maxConcurrent: 1, drainLimit: .seconds(5)) { _ in
            scene.journal.begin()
            try await scene.sleep(.seconds(1000))
          }
        }
        try await scene.until { scene.journal.now == 1 }
        try await scene.store.close()
        try await group.waitForAll()
      }
      #expect(scene.seconds - began <= 16)
    }
  }

  // MARK: FIFO queues

  @Test func aGroupInOneBatchIsHandledInOrder() throws {
    try Scene.play(QueueSettings(isFIFO: true)) { scene in
      try await scene.send(["a1", "a2", "a3"], group: "a")
      try await scene.send(["b1", "b2"], group: "b")
      let began = scene.seconds
      try await scene.consuming { lease in
        scene.journal.begin()
        scene.journal.note(lease.text)
        // The last of them is with its handler when its lease would have ended long ago.
        try await scene.sleep(.seconds(20))
        #expect(lease.attempt == 1)
        scene.journal.end()
      } _: {
        try await scene.until { try await scene.queue.counts.total == 0 }
      }
      let all = scene.journal.all
      #expect(all.filter { $0.hasPrefix("a") } == ["a1", "a2", "a3"])
      #expect(all.filter { $0.hasPrefix("b") } == ["b1", "b2"])
      // The groups were handled side by side.
      #expect(scene.journal.most == 2)
      #expect(scene.seconds - began <= 61)
    }
  }

  @Test func aGroupThatTookAllPlacesGivesThemFreeOneByOne() throws {
    try Scene.play(QueueSettings(isFIFO: true)) { scene in
      try await scene.send(["a1", "a2", "a3"], group: "a")
      try await scene.send(["b1"], group: "b")
      try await scene.consuming(3) { lease in
        try await scene.sleep(.seconds(lease.text == "b1" ? 1 : 20))
        scene.journal.note(lease.text)
      } _: {
        try await scene.until { try await scene.queue.counts.total == 0 }
      }
      #expect(scene.journal.all == ["a1", "b1", "a2", "a3"])
    }
  }

  @Test func aFailureGivesBackWhatIsBehindItInItsGroup() throws {
    try Scene.play(QueueSettings(isFIFO: true)) { scene in
      try await scene.send(["a1", "a2", "a3", "a4"], group: "a")
      try await scene.send(["b1"], group: "b")
      try await scene.consuming { lease in
        scene.journal.note("\(lease.text) \(lease.attempt)")
        if lease.text == "a2", lease.attempt < 3 { throw Refused() }
      } _: {
        try await scene.until { try await scene.queue.counts.total == 0 }
      }
      let all = scene.journal.all
      #expect(all.filter { $0.hasPrefix("b") } == ["b1 1"])
      #expect(
        all.filter { $0.hasPrefix("a") }.map { String($0.prefix(2)) }
          == ["a1", "a2", "a2", "a2", "a3", "a4"])
    }
  }

  @Test func aDrainBeginsNothingThatIsBehindInAGroup() throws {
    try Scene.play(QueueSettings(isFIFO: true)) { scene in
      try await scene.send(["a1", "a2", "a3"], group: "a")
      try await scene.consuming { lease in
        scene.journal.begin()
        try await scene.sleep(.seconds(10))
        scene.journal.note(lease.text)
      } _: {
        try await scene.until { scene.journal.now == 1 }
      }
      #expect(scene.journal.all == ["a1"])
      #expect(try await scene.queue.countsList == [2, 0, 0])
    }
  }

  /// The example of Docs/embedding.md.
  @Test func theLoopRunsInASimulation() throws {
    let simulation = Simulation(seed: 7)
    try simulation.run {
      let store = try simulation.open(at: "/store")
      let queue = try await store.queue("orders")
      try await queue.send("two boxes of tea")
      await #expect(throws: PenstockError.self) {
        try await queue.consume { lease in
          try await simulation.clock.sleep(for: .seconds(600))
          simulation.losePower()
        }
      }
      // The handler's lease was kept for ten minutes; power was lost before its delete.
      let again = try simulation.open(at: "/store")
      #expect(try await again.queue("orders").describe().counts.total == 1)
    }
    simulation.end()
  }
}
