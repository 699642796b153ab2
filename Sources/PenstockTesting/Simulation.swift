// SPDX-License-Identifier: Apache-2.0
public import Penstock
internal import PenstockSystem

/// Why a simulation did not come to the end of its body.
public enum SimulationError: Error, Hashable, CustomStringConvertible {
  /// Nothing can ever happen any more, or nothing but the stores' upkeep did for a day.
  case deadlock
  /// As many steps as were allowed, and no end.
  case tooManySteps(Int)
  /// Work left the simulation's executors and came back: the run is no function of its seed.
  case leftTheSimulation

  /// What happened and what to look for.
  public var description: String {
    switch self {
    case .deadlock:
      "deadlock: a task waits for what cannot come, or for work outside of the simulation"
    case .tooManySteps(let count): "no end after \(count) steps"
    case .leftTheSimulation:
      "work left the simulation: look for Task { }, detached tasks, real sleeps, the main actor"
    }
  }
}

/// A machine of which all is simulated but the code: disk, clock, chance, and the order in which
/// tasks and the stores' own workers get their turns. Everything is a function of the seed.
///
/// ```swift
/// let simulation = Simulation(seed: 7)
/// try simulation.run {
///   let store = try simulation.open(at: "/store")
///   try await store.queue("orders").send("two boxes of tea")
///   simulation.losePower()
///   let again = try simulation.open(at: "/store")
///   #expect(try await again.existingQueue("orders")?.describe().counts.visible == 1)
/// }
/// ```
///
/// Time stands still while anything can run; then it moves to the next thing that is due. Sleep on
/// `clock`. The body must not leave the executor: see `SeededExecutor`.
///
/// Unchecked: one thread runs the simulation and all that is in it.
public final class Simulation: @unchecked Sendable {
  /// A store with its driver, in a process of its own.
  private final class Machine {
    weak var store: Store?
    let driver: StoreDriver
    let process: SimulatedProcess

    init(_ store: Store, _ driver: StoreDriver, _ process: SimulatedProcess) {
      self.store = store
      self.driver = driver
      self.process = process
    }
  }

  /// A set of tasks that can be stopped and ended together.
  // Unchecked: used by the simulation's thread.
  final class Lane: @unchecked Sendable {
    let executor = SeededExecutor(seed: 0)
    /// None of its jobs runs for now, but for calls that an actor has begun on.
    var isHeld = false
    /// The same for good.
    var isDead = false
    fileprivate var tasks: [Task<Void, Never>] = []
  }

  // Unchecked: written by the simulation's thread.
  private final class Box<T>: @unchecked Sendable {
    var result: Result<T, any Error>?
  }

  /// How long stores may be busy with themselves while no task runs and none sleeps.
  private static let idleLimit: UInt64 = 86_400_000_000_000

  /// What everything follows from.
  public let seed: UInt64
  /// The disk, which outlives processes.
  public let disk: SimulatedFileSystem
  /// Wall clock and monotonic clock; sleep on it.
  public let clock = SimulatedClock()
  /// Steps after which `run` gives up.
  public var stepLimit = 1_000_000
  /// Jobs, workers' turns and moves of the clock so far.
  public private(set) var steps = 0
  /// A hash of every decision and every call that changed the disk: equal for equal runs.
  public private(set) var trace: UInt64 = 0xcbf2_9ce4_8422_2325

  /// Called before every step, with whether time must move on now; answers whether it did anything.
  var onStep: ((_ isIdle: Bool) -> Bool)?
  /// The decisions of this simulation.
  let random: StableRandom
  private let storeRandom: StableRandom
  private let main = Lane()
  private var lanes: [Lane]
  private var isRunning = false
  private var machines: [Machine] = []
  /// Of processes that ended; their calls under way are still to be answered.
  private var deadMachines: [Machine] = []
  /// Monotonic time of the last job.
  private var lastJob: UInt64 = 0

  /// A machine with an empty disk.
  ///
  /// - Parameter sectorSize: what a crash keeps or drops together, in bytes.
  public init(seed: UInt64, sectorSize: Int = 4096) {
    self.seed = seed
    disk = SimulatedFileSystem(sectorSize: sectorSize, traceLimit: 64)
    random = StableRandom(seed: seed)
    storeRandom = StableRandom(seed: random.next())
    lanes = [main]
  }

  // MARK: Stores

  /// Opens a store on the disk, or makes one there. Nil options take the smallest segments, which
  /// suit a disk in memory.
  public func open(
    at path: String, options: StoreOptions? = nil
  ) throws(PenstockError) -> Store {
    var settings = StoreOptions()
    settings.segmentSize = 64 << 10
    // Half of the runs read what they wrote from the disk.
    if seed.isMultiple(of: 2) { settings.recentBytes = 0 }
    let process = SimulatedProcess(disk) { [weak self] _, call in
      self?.note(call.kind.rawValue.utf8.reduce(call.offset) { $0 &* 31 &+ UInt64($1) })
      self?.note(UInt64(call.length))
      return .asAsked
    }
    let (store, driver) = try Store.openDriven(
      at: path, options: options ?? settings,
      environment: StoreEnvironment(fileSystem: process, clock: clock, random: storeRandom))
    machines.append(Machine(store, driver, process))
    return store
  }

  /// The process that has the stores open ends. What they wrote stays; their locks are free.
  ///
  /// Calls of theirs that are under way end with an error, a waiting receive perhaps with nothing
  /// instead, and later calls with `.closed` or `.storeFailed`. Tasks go on: the body plays those
  /// who outlive the process.
  public func kill() {
    disk.kill()
    endProcess()
  }

  /// As `kill`, and power is lost: the disk keeps of what was pending what the seed says.
  public func losePower() {
    var chooser = SeededChooser(seed: random.next())
    disk.crash(choosing: &chooser, garbling: random.chance(1, of: 4))
    endProcess()
  }

  private func endProcess() {
    note(UInt64(machines.count))
    for machine in machines { machine.process.end() }
    deadMachines += machines
    machines = []
  }

  /// Answers the calls under way of processes that ended.
  private func bury() {
    let dead = deadMachines
    deadMachines = []
    for machine in dead {
      machine.store?.close { _ in }
      var turns = 0
      while turns < 1000, let worker = machine.driver.due.first {
        machine.driver.turn(worker)
        turns += 1
      }
    }
  }

  // MARK: Running

  /// Runs `body` to its end on the calling thread.
  ///
  /// - Returns: what it returns.
  /// - Throws: what it throws, or a `SimulationError`, after which the body is stuck where it was.
  public func run<T: Sendable>(_ body: @escaping @Sendable () async throws -> T) throws -> T {
    let box = Box<T>()
    start(in: main) {
      do { box.result = .success(try await body()) } catch { box.result = .failure(error) }
    }
    lastJob = clock.monotonicNanoseconds()
    isRunning = true
    for lane in lanes { lane.executor.holdThread() }
    defer {
      isRunning = false
      for lane in lanes { lane.executor.releaseThread() }
    }
    while true {
      if let result = box.result { return try result.get() }
      try step()
      if lanes.contains(where: \.executor.hasForeignJobs) {
        throw SimulationError.leftTheSimulation
      }
    }
  }

  /// Starts a task in a lane.
  func start(in lane: Lane, _ body: @escaping @Sendable () async -> Void) {
    lane.tasks.append(Task(executorPreference: lane.executor) { await body() })
  }

  func addLane() -> Lane {
    let lane = Lane()
    if isRunning { lane.executor.holdThread() }
    lanes.append(lane)
    return lane
  }

  /// Cancels all that is left, lets it end, dead or not, and closes the stores: nothing of the
  /// simulation stays in memory, unless it ignores its cancellation and waits on.
  public func end() {
    onStep = nil
    kill()
    for lane in lanes {
      lane.isDead = false
      lane.isHeld = false
      for task in lane.tasks { task.cancel() }
    }
    stepLimit = steps + 10_000
    do { while lanes.contains(where: { $0.executor.readyCount > 0 }) { try step() } } catch {}
    lanes = [main]
  }

  private func step() throws(SimulationError) {
    bury()
    steps += 1
    if steps > stepLimit { throw .tooManySteps(stepLimit) }
    var ready = 0
    for lane in lanes { ready += readyCount(lane) }
    let due = machines.flatMap { machine in machine.driver.due.map { (machine.driver, $0) } }
    let isIdle = ready + due.count == 0
    if let onStep, onStep(isIdle) { return }
    if isIdle { return try passTime() }
    var choice = random.below(ready + due.count)
    note(UInt64(choice))
    if choice < due.count {
      let (driver, worker) = due[choice]
      driver.turn(worker)
      machines.removeAll { $0.driver.isOver }
      return
    }
    choice -= due.count
    for lane in lanes {
      let count = readyCount(lane)
      if choice < count {
        lastJob = clock.monotonicNanoseconds()
        let isStill = lane.isHeld || lane.isDead
        lane.executor.runJob(at: isStill ? lane.executor.actorJob ?? choice : choice)
        return
      }
      choice -= count
    }
  }

  private func readyCount(_ lane: Lane) -> Int {
    guard lane.isHeld || lane.isDead else { return lane.executor.readyCount }
    // A call that an actor has begun on goes on there, as a request does that has reached a server;
    // others may need the actor.
    return lane.executor.actorJob == nil ? 0 : 1
  }

  /// When time brings something, by the monotonic clock; nil when it never does, or only upkeep of
  /// the stores after a day of that.
  var nextTime: UInt64? {
    if let wake = clock.nextWake {
      return machines.compactMap(\.driver.nextDue).reduce(wake) { min($0, $1) }
    }
    let next = machines.compactMap(\.driver.nextDue).min()
    return next.flatMap { $0 > lastJob + Self.idleLimit ? nil : $0 }
  }

  private func passTime() throws(SimulationError) {
    let now = clock.monotonicNanoseconds()
    guard let next = nextTime else { throw .deadlock }
    note(next)
    clock.advance(by: .nanoseconds(Int64(clamping: next - min(now, next))))
  }

  func note(_ number: UInt64) {
    trace = (trace ^ number) &* 0x9e37_79b9_7f4a_7c15
    trace ^= trace >> 29
  }
}
