// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import Synchronization
import Testing

/// A simulated machine runs async code over real stores, as a function of its seed.
@Suite struct SimulationTests {
  private final class Counter: Sendable { let count = Mutex(0) }

  /// Senders and a receiver through a kill and a loss of power; returns what was acknowledged and
  /// what was there in the end.
  private static func history(_ simulation: Simulation) throws -> (sent: Int, left: Int) {
    try simulation.run {
      let sent = Counter()
      for round in 0..<3 {
        let store = try simulation.open(at: "/store")
        let queue = try await store.queue("orders")
        await withTaskGroup(of: Void.self) { group in
          for number in 0..<4 {
            group.addTask {
              do {
                try await simulation.clock.sleep(for: .milliseconds(number))
                for _ in 0..<5 {
                  try await queue.send("\(round) \(number)")
                  sent.count.withLock { $0 += 1 }
                }
              } catch {}
            }
          }
          group.addTask {
            do { try await simulation.clock.sleep(for: .milliseconds(2)) } catch {}
            for _ in 0..<10 { await Task.yield() }
            if round == 0 { simulation.kill() } else { simulation.losePower() }
          }
        }
      }
      let store = try simulation.open(at: "/store")
      let counts = try await store.queue("orders").describe().counts
      try await store.close()
      return (sent.count.withLock { $0 }, counts.visible)
    }
  }

  @Test func oneSeedHasOneTraceThroughCrashesAndReopenings() throws {
    var traces: Set<UInt64> = []
    for seed in 1...20 as ClosedRange<UInt64> {
      let simulation = Simulation(seed: seed)
      let again = Simulation(seed: seed)
      let found = try Self.history(simulation)
      #expect(found == (try Self.history(again)))
      #expect(found.left >= found.sent, "what was acknowledged is there")
      #expect(simulation.trace == again.trace)
      #expect(simulation.steps == again.steps)
      traces.insert(simulation.trace)
      simulation.end()
      again.end()
    }
    #expect(traces.count == 20)
  }

  @Test func theProgramOfTheReadmeHolds() throws {
    let simulation = Simulation(seed: 7)
    try simulation.run {
      let store = try simulation.open(at: "/store")
      try await store.queue("orders").send("two boxes of tea")
      simulation.losePower()
      let again = try simulation.open(at: "/store")
      #expect(try await again.existingQueue("orders")?.describe().counts.visible == 1)
    }
    simulation.end()
  }

  @Test func timePassesOnlyWhenNothingElseCanHappen() throws {
    let simulation = Simulation(seed: 1)
    let before = simulation.clock.now
    let lease = try simulation.run {
      let store = try simulation.open(at: "/store")
      let queue = try await store.queue("orders", QueueSettings(visibilityTimeout: .seconds(60)))
      try await queue.send("tea")
      #expect(try await queue.receive().count == 1)
      #expect(before.duration(to: simulation.clock.now) < .seconds(1))
      #expect(try await queue.receive(wait: .seconds(20)).isEmpty)
      #expect(before.duration(to: simulation.clock.now) >= .seconds(20))
      return try await queue.receive(wait: .seconds(50)).first
    }
    #expect(lease?.message.receiveCount == 2)
    #expect(before.duration(to: simulation.clock.now) >= .seconds(60))
    simulation.end()
  }

  @Test func aKillEndsWhatIsUnderWay() throws {
    let simulation = Simulation(seed: 3)
    try simulation.run {
      let store = try simulation.open(at: "/store")
      let queue = try await store.queue("orders")
      async let receive = queue.receive(wait: .seconds(20))
      async let send = queue.send("tea", delay: .seconds(60))
      for _ in 0..<2 { await Task.yield() }
      simulation.kill()
      let before = simulation.clock.now
      _ = try? await receive
      _ = try? await send
      #expect(simulation.clock.now == before)
      await #expect(throws: PenstockError.self) { try await queue.send("coffee") }
      _ = try simulation.open(at: "/store")
    }
    simulation.end()
  }

  @Test func aKillEndsAReceiveThatWaits() throws {
    let simulation = Simulation(seed: 4)
    try simulation.run {
      let store = try simulation.open(at: "/store")
      let queue = try await store.queue("orders")
      async let receive = queue.receive(wait: .seconds(20))
      try await simulation.clock.sleep(for: .seconds(1))
      let before = simulation.clock.now
      simulation.kill()
      #expect(((try? await receive) ?? []).isEmpty)
      #expect(simulation.clock.now == before)
    }
    simulation.end()
  }

  @Test func aWaitForNothingIsADeadlock() {
    let simulation = Simulation(seed: 1)
    #expect(throws: SimulationError.deadlock) {
      try simulation.run {
        let (stream, continuation) = AsyncStream.makeStream(of: Int.self)
        for await _ in stream {}
        continuation.finish()
      }
    }
    #expect(throws: SimulationError.deadlock) {
      try simulation.run {
        let store = try simulation.open(at: "/store")
        try await store.queue("orders").send("tea")
        let (stream, continuation) = AsyncStream.makeStream(of: Int.self)
        for await _ in stream {}
        continuation.finish()
      }
    }
    simulation.end()
  }

  @Test func workThatLeftAndCameBackIsNoticed() {
    let simulation = Simulation(seed: 1)
    #expect(throws: SimulationError.leftTheSimulation) {
      try simulation.run {
        let (stream, continuation) = AsyncStream.makeStream(of: Int.self)
        async let number = stream.first { _ in true }
        for _ in 0..<50 { await Task.yield() }
        try SystemThread(name: "other") { continuation.yield(1) }.join()
        _ = await number
      }
    }
    simulation.end()
  }

  @Test func aRunWithoutEndIsGivenUp() {
    let simulation = Simulation(seed: 1)
    simulation.stepLimit = 500
    #expect(throws: SimulationError.tooManySteps(500)) {
      try simulation.run { while !Task.isCancelled { await Task.yield() } }
    }
    simulation.end()
  }

  @Test func aCancelledSleeperWakesAtOnce() throws {
    let simulation = Simulation(seed: 1)
    let before = simulation.clock.now
    try simulation.run {
      await withTaskGroup(of: Bool.self) { group in
        group.addTask {
          do {
            try await simulation.clock.sleep(for: .seconds(60))
            return false
          } catch { return error is CancellationError }
        }
        await Task.yield()
        group.cancelAll()
        #expect(await group.next() == true)
      }
    }
    #expect(simulation.clock.now == before)
  }
}
