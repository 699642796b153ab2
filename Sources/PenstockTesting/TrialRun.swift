// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// One trial of a handler: a producer and its check outside, consumers in a process that may end.
// Unchecked: the simulation has one thread.
final class TrialRun<World: Sendable>: @unchecked Sendable {
  /// One call of the handler and the delete after it.
  private final class Flight {
    enum Stage { case working, returned, deleting }

    let message: Int
    let lease: Lease
    let lane: Simulation.Lane
    /// Number of the consumer, from 1.
    let consumer: Int
    var stage = Stage.working
    /// The message was delivered to somebody else meanwhile.
    var isRedelivered = false
    var losesDelete = false

    init(_ message: Int, _ lease: Lease, _ lane: Simulation.Lane, _ consumer: Int) {
      self.message = message
      self.lease = lease
      self.lane = lane
      self.consumer = consumer
    }

    /// By the store's clock, in milliseconds; not above zero once the lease has ended.
    var timeLeft: Int64 {
      lease.message.leaseEndsAt.milliseconds - lease.queue.store.now.milliseconds
    }
  }

  private let test: HandlerTest<World>
  private let simulation: Simulation
  private let start: SimulatedClock.Instant
  private var trial: HandlerTrial
  /// Those of the test that this trial does not leave out.
  private let faults: HandlerFaults
  /// How many faults may still happen, and one step in how many brings one.
  private var budget: Int
  private let rarity: Int

  /// By number from 1, in the order of the sends.
  private var numbers: [MessageID: Int] = [:]
  private var deliveries: [Int: Int] = [:]
  private var newest = 0
  /// Messages that a handler was done with.
  private var handled: Set<Int> = []
  private var flights: [Flight] = []
  private var lanes: [Simulation.Lane] = []
  private var held: Flight?
  private var idleSteps = 0
  /// The process ended, and the next has not begun.
  private var hasCrashed = false
  private var hasNews = false
  private var listener: CheckedContinuation<Void, Never>?

  private var random: StableRandom { simulation.random }

  init(_ test: HandlerTest<World>, _ seed: UInt64) {
    self.test = test
    simulation = Simulation(seed: seed)
    simulation.stepLimit = 200_000
    start = simulation.clock.now
    trial = HandlerTrial(seed: seed)
    let random = simulation.random
    faults = HandlerFaults(test.faults.singles.filter { _ in random.chance(3, of: 4) })
    budget = 1 + random.below(6)
    rarity = [3, 8, 24][random.below(3)]
  }

  func run() -> HandlerTrial {
    simulation.onStep = { [weak self] in self?.disturb($0) ?? false }
    do {
      trial.problem = try simulation.run { try await self.play() }
    } catch { trial.problem = "the trial did not come to its end: \(error)" }
    trial.trace = simulation.trace
    let result = trial
    simulation.end()
    return result
  }

  private func event(_ text: String) {
    let milliseconds = start.duration(to: simulation.clock.now) / .milliseconds(1)
    trial.events.append("\(Int(milliseconds)) ms: \(text)")
  }

  private func happened(_ fault: String, _ details: String) {
    trial.faults[fault, default: 0] += 1
    event("\(fault)\(details)")
  }

  // MARK: Outside of the process

  private func play() async throws -> String? {
    let world = test.world()
    while true {
      let store = try simulation.open(at: "/store")
      let settings = QueueSettings(visibilityTimeout: test.visibilityTimeout)
      let queue = try await store.queue("messages", settings)
      if numbers.isEmpty { try await send(to: queue) }
      let handler = await test.consumer(world)
      hasCrashed = false
      // A second consumer only where its turns are among what is tested.
      let count = faults.isDisjoint(with: [.duplicates, .leaseExpiry, .reordering]) ? 1 : 2
      lanes = (1...count).map { _ in simulation.addLane() }
      for lane in lanes {
        simulation.start(in: lane) { await self.consume(queue, lane, handler) }
      }
      do {
        while !hasCrashed, trial.problem == nil {
          let counts = try await queue.describe().counts
          if counts == QueueCounts(), flights.isEmpty, !hasCrashed {
            try await store.close()
            return try await judge(world)
          }
          await news()
        }
      } catch { if !hasCrashed { throw error } }
      if let problem = trial.problem { return problem }
    }
  }

  private func send(to queue: Queue) async throws {
    let entries = test.messages.map { message in
      let isLate = faults.contains(.reordering) && random.chance(1, of: 2)
      return SendEntry(message, delay: isLate ? .seconds(1 + random.below(5)) : .zero)
    }
    for entry in entries {
      for result in try await queue.send(batch: [entry]) {
        numbers[try result.get().id] = numbers.count + 1
      }
    }
    event("\(numbers.count) messages are sent")
  }

  private func judge(_ world: World) async throws -> String? {
    let lost = numbers.values.filter { !handled.contains($0) }.min()
    if test.deletesOnReturn, let lost {
      return "message \(lost) is gone, and no handler ever returned from it"
    }
    do { return try await test.check(world) } catch { return "the check threw: \(error)" }
  }

  /// Waits until something happened that may be the end.
  private func news() async {
    if !hasNews { await withCheckedContinuation { listener = $0 } }
    hasNews = false
  }

  private func tell() {
    hasNews = true
    listener?.resume()
    listener = nil
  }

  // MARK: In the process

  private func consume(
    _ queue: Queue, _ lane: Simulation.Lane, _ handler: HandlerTest<World>.Handler
  ) async {
    do {
      while !queue.store.isClosed {
        guard let lease = try await queue.receive(wait: .seconds(20)).first else { continue }
        await handle(lease, lane, handler)
      }
    } catch {}
  }

  private func handle(
    _ lease: Lease, _ lane: Simulation.Lane, _ handler: HandlerTest<World>.Handler
  ) async {
    let number = numbers[lease.message.id] ?? 0
    let flight = begin(number, lease, lane)
    do {
      let delivery = Delivery(lease: lease, clock: simulation.clock) { try self.fail(number) }
      try await handler(delivery)
      if lane.isDead { return }
      handled.insert(number)
      event("consumer \(flight.consumer) has handled \(number)")
      flight.stage = .returned
      for _ in 0...random.below(3) { await Task.yield() }
      if lane.isDead { return }
      if test.deletesOnReturn { try await delete(flight) }
    } catch {
      if lane.isDead { return }
      event("consumer \(flight.consumer) gives \(number) up: \(error)")
      if random.chance(1, of: 2) { try? await lease.release() }
    }
    if lane.isDead { return }
    flights.removeAll { $0 === flight }
    tell()
  }

  private func begin(_ number: Int, _ lease: Lease, _ lane: Simulation.Lane) -> Flight {
    for other in flights where other.message == number { other.isRedelivered = true }
    let flight = Flight(number, lease, lane, (lanes.firstIndex { $0 === lane } ?? 0) + 1)
    flights.append(flight)
    trial.deliveries += 1
    let count = (deliveries[number] ?? 0) + 1
    deliveries[number] = count
    let again = count == 1 ? "" : ", delivery \(count)"
    event("consumer \(flight.consumer) gets \(number)\(again)")
    if count == 1, number < newest {
      happened("message out of order", ": \(number) comes after \(newest)")
    }
    newest = max(newest, number)
    if count > test.deliveryLimit {
      trial.problem = "message \(number) was delivered \(count) times and is still there"
      tell()
    }
    return flight
  }

  private func delete(_ flight: Flight) async throws {
    if flight.losesDelete { return }
    flight.stage = .deleting
    try await flight.lease.delete()
    if !flight.lane.isDead { event("consumer \(flight.consumer) has deleted \(flight.message)") }
  }

  private func fail(_ number: Int) throws {
    guard faults.contains(.failures), budget > 0, random.chance(1, of: 4) else { return }
    budget -= 1
    happened("failure in mid-work", ", of \(number)")
    throw InjectedFailure()
  }

  // MARK: Faults

  /// Lets a fault happen, or a consumer that stood still go on. Called before every step.
  private func disturb(_ isIdle: Bool) -> Bool {
    if let held { return mayGoOn(held, isIdle) }
    guard budget > 0, !flights.isEmpty, random.chance(1, of: rarity) else { return false }
    let flight = flights[random.below(flights.count)]
    var choices: [(Flight) -> Void] = []
    if faults.contains(.crashes) { choices.append(crash) }
    switch flight.stage {
    case .working where faults.contains(.leaseExpiry) && flight.timeLeft > 0:
      choices.append { self.outlive($0, "lease ended in mid-work") }
    case .returned where faults.contains(.duplicates) && test.deletesOnReturn:
      if flight.losesDelete { break }
      choices.append(loseDelete)
      // Time would end the lease of a handler at work as well, which is a fault of another kind.
      if flight.timeLeft <= 0 || flights.contains(where: { $0.stage == .working }) { break }
      choices.append { self.outlive($0, "lease ended before the delete") }
    default: break
    }
    guard !choices.isEmpty else { return false }
    budget -= 1
    choices[random.below(choices.count)](flight)
    return true
  }

  private func loseDelete(_ flight: Flight) {
    flight.losesDelete = true
    happened("delete lost", ", of \(flight.message) by consumer \(flight.consumer)")
  }

  /// Holds a consumer and lets its lease end.
  private func outlive(_ flight: Flight, _ story: String) {
    simulation.clock.advance(by: .milliseconds(flight.timeLeft + 1))
    flight.lane.isHeld = true
    held = flight
    idleSteps = 0
    happened(story, ", of \(flight.message) at consumer \(flight.consumer)")
  }

  /// A consumer stands still until another has its message, or nobody wants it.
  private func mayGoOn(_ flight: Flight, _ isIdle: Bool) -> Bool {
    if isIdle { idleSteps += 1 }
    let isOver = flight.isRedelivered && random.chance(1, of: 4)
    guard isOver || (isIdle && (idleSteps > 4 || simulation.nextTime == nil)) else { return false }
    flight.lane.isHeld = false
    held = nil
    event("consumer \(flight.consumer) goes on with \(flight.message)")
    return true
  }

  private func crash(_ flight: Flight) {
    let place = flight.stage == .working ? "in mid-work" : "before the delete was durable"
    let isPowerLoss = random.chance(1, of: 2)
    happened("\(isPowerLoss ? "power loss" : "kill") \(place)", ", of \(flight.message)")
    for lane in lanes { lane.isDead = true }
    flights = []
    hasCrashed = true
    if isPowerLoss { simulation.losePower() } else { simulation.kill() }
    tell()
  }
}
