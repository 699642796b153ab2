// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockSystem
internal import Synchronization

/// One call of `Queue.consume`.
///
/// It runs in tasks of its own, not in children of the caller's: those would be cancelled with it,
/// and handlers could not finish.
///
/// Invariants
/// - I1: `free` and the `places` of all runs add up to the number of handlers.
/// - I2: a lease is extended only while it is in `leases` of a run, and leaves it before it is
///   deleted or given back: what was given back is not hidden again.
final class Consumer: Sendable {
  typealias Handler = @Sendable (Lease, Consumer) async throws -> Void

  /// Messages that are handled one after the other.
  private struct Run {
    /// The first is with the handler, unless it was taken out to be deleted.
    var leases: ArraySlice<Lease>
    var places: Int
    let task: Task<Void, Never>
  }

  private struct State {
    /// By number, ascending with time.
    var runs: [UInt64: Run] = [:]
    var lastRun: UInt64 = 0
    var free: Int
    var isStopping = false
    var failure: PenstockError?
    var receiver: Task<Void, Never>?
    /// The receiver or, after it, the drain, when it waits for a change.
    var listener: CheckedContinuation<Void, Never>?
  }

  private let queue: Queue
  private let engine: Engine
  private let isFIFO: Bool
  /// Milliseconds.
  private let timeout: Int64
  private let drainLimit: Duration?
  private let retryDelay: RetryDelay
  private let handler: Handler
  private let executor: (any TaskExecutor)?
  private let state: Mutex<State>
  /// Held while leases are extended, and while they are taken out of runs (I2).
  private let heart = Mutex(())

  /// To be called in the task that calls `run`.
  init(
    _ queue: Queue, _ maxConcurrent: Int, _ visibilityTimeout: Duration?, _ drainLimit: Duration?,
    _ retryDelay: @escaping RetryDelay, _ handler: @escaping Handler
  ) throws(PenstockError) {
    guard let settings = queue.store.lookup(queue.id)?.settings else { throw .noQueue }
    timeout = (visibilityTimeout ?? settings.visibilityTimeout).wholeMilliseconds
    guard maxConcurrent > 0, timeout > 0 else {
      throw PenstockError(
        .invalidArgument, "a consumer needs one handler and a millisecond of lease at least")
    }
    self.queue = queue
    engine = queue.store.engine
    isFIFO = settings.isFIFO
    self.drainLimit = drainLimit
    self.retryDelay = retryDelay
    self.handler = handler
    executor = preferredTaskExecutor()
    state = Mutex(State(free: maxConcurrent))
  }

  func run() async throws(PenstockError) {
    let beats = Task(executorPreference: executor) { await self.beat() }
    let receiver = state.withLock { state in
      let receiver = Task(executorPreference: executor) { await self.receive() }
      state.receiver = receiver
      return receiver
    }
    await withTaskCancellationHandler {
      await receiver.value
    } onCancel: {
      stop(nil)
    }
    let limit = Task(executorPreference: executor) { await self.limitDrain() }
    await wait { $0.runs.isEmpty }
    beats.cancel()
    limit.cancel()
    await beats.value
    await limit.value
    if let failure = state.withLock({ $0.failure }) { throw failure }
  }

  /// Ends the receiving. Closing is no failure.
  func stop(_ error: PenstockError?) {
    let receiver = change { state in
      state.isStopping = true
      if error?.code != .closed { state.failure = state.failure ?? error }
      return state.receiver
    }
    receiver?.cancel()
  }

  private func limitDrain() async {
    guard let drainLimit else { return }
    // A century at most, so that clocks which count nanoseconds do not overflow.
    await engine.clock.sleep(min(max(.zero, drainLimit), .seconds(100 * 365 * 86_400)))
    if Task.isCancelled { return }
    for task in state.withLock({ $0.runs.values.map(\.task) }) { task.cancel() }
  }

  private func change<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
    let (result, listener) = state.withLock { (body(&$0), $0.listener.take()) }
    listener?.resume()
    return result
  }

  private func wait(until isMet: (State) -> Bool) async {
    while !state.withLock({ isMet($0) }) {
      await withCheckedContinuation { continuation in
        let isMetNow = state.withLock { state in
          if isMet(state) { return true }
          state.listener = continuation
          return false
        }
        if isMetNow { continuation.resume() }
      }
    }
  }

  // MARK: Receiving

  private func receive() async {
    while true {
      await wait { $0.free > 0 || $0.isStopping }
      let (free, isStopping) = state.withLock { ($0.free, $0.isStopping) }
      if isStopping { return }
      do throws(PenstockError) {
        start(
          try await queue.receive(
            maximum: min(free, engine.options.maximumReceive), wait: .seconds(20),
            visibilityTimeout: .milliseconds(timeout)))
      } catch {
        // What was logged is passed over: those behind it must not wait for it.
        if error.code == .storeFull {
          await engine.clock.sleep(.nanoseconds(Int64(Engine.fullDiskRetry)))
        } else if !error.concernsOneMessage {
          stop(error)
        }
      }
    }
  }

  private func start(_ leases: [Lease]) {
    var runs: [[Lease]] = []
    var places: [String: Int] = [:]
    for lease in leases {
      let group = isFIFO ? lease.message.content.groupID : nil
      if let group, let place = places[group] {
        runs[place].append(lease)
      } else {
        if let group { places[group] = runs.count }
        runs.append([lease])
      }
    }
    state.withLock { state in
      for leases in runs {
        state.lastRun += 1
        let number = state.lastRun
        state.free -= leases.count
        // It needs the lock to begin, so it finds its run.
        let task = Task(executorPreference: executor) { await self.work(number) }
        state.runs[number] = Run(leases: leases[...], places: leases.count, task: task)
      }
    }
  }

  // MARK: Handling

  private func work(_ number: UInt64) async {
    var delay = Duration.zero
    while let lease = next(of: number) {
      do { try await handler(lease, self) } catch {
        if Task.isCancelled { break }
        delay = max(.zero, retryDelay(lease, error))
        engine.options.log?(
          "message with LSN \(lease.handle.message) was not handled, attempt \(lease.attempt), "
            + "and is given back: \(error)")
        break
      }
      if Task.isCancelled { break }
      _ = take(1, from: number)
      guard await delete(lease) else { break }
      change { state in
        state.runs[number]?.places -= 1
        state.free += 1
      }
    }
    await giveBack(take(.max, from: number), delay)
    change { state in state.free += state.runs.removeValue(forKey: number)?.places ?? 0 }
  }

  /// The lease to work on, as it is now; nil when there is none, or no more shall be begun.
  private func next(of number: UInt64) -> Lease? {
    let lease = state.withLock { $0.isStopping ? nil : $0.runs[number]?.leases.first }
    guard let lease, !Task.isCancelled, let end = end(of: lease) else { return nil }
    var message = lease.message
    message.leaseEndsAt = end
    return Lease(queue: queue, message: message)
  }

  /// Takes leases out of a run.
  private func take(_ count: Int, from number: UInt64) -> ArraySlice<Lease> {
    heart.withLock { _ in
      state.withLock { state in
        let taken = state.runs[number]?.leases.prefix(count) ?? []
        state.runs[number]?.leases.removeFirst(taken.count)
        return taken
      }
    }
  }

  /// Deletes a message whose work is done, if it is still ours; false when it is not, or on errors.
  private func delete(_ lease: Lease) async -> Bool {
    while true {
      do throws(PenstockError) {
        let results = try await awaited {
          queue.store.delete([lease.handle], from: queue.id, isFenced: true, $0)
        }
        for result in results { try result.get() }
        return true
      } catch {
        guard error.code == .storeFull else {
          if error.code != .leaseLost { stop(error) }
          return false
        }
        await engine.clock.sleep(.nanoseconds(Int64(Engine.fullDiskRetry)))
      }
    }
  }

  /// Makes messages visible: the first, whose handler failed, after a delay.
  private func giveBack(_ leases: ArraySlice<Lease>, _ delay: Duration) async {
    let changes = leases.indices.map { index in
      VisibilityChange(
        handle: leases[index].handle, timeout: index == leases.startIndex ? delay : .zero)
    }
    if changes.isEmpty { return }
    do throws(PenstockError) {
      // Those that were lost are somebody else's by now.
      _ = try await awaited {
        queue.store.changeVisibility(changes, of: queue.id, isFenced: true, $0)
      }
    } catch {
      // On a full disk they come back when their leases end.
      if error.code != .storeFull { stop(error) }
    }
  }

  // MARK: Leases

  /// When a lease ends; nil when it is lost.
  private func end(of lease: Lease) -> Timestamp? { engine.look { $0.leaseEnd(lease.handle) } }

  /// Extends leases in time, and cancels handlers that have lost theirs.
  private func beat() async {
    while !Task.isCancelled {
      // With all handlers at work nobody receives, who would be told.
      if let refusal = engine.shared.withLock({ $0.refusal }) { stop(refusal) }
      let (wake, lost) = heart.withLock { _ in extendLeases(engine.now) }
      for task in lost { task.cancel() }
      await engine.clock.sleep(.milliseconds(max(1, wake.milliseconds - engine.now.milliseconds)))
    }
  }

  /// - Returns: when to look again, and the tasks whose leases are lost.
  private func extendLeases(_ now: Timestamp) -> (Timestamp, [Task<Void, Never>]) {
    var wake = now.adding(timeout / 3)
    var changes: [VisibilityChange] = []
    var lost: [Task<Void, Never>] = []
    let runs = state.withLock { $0.runs.sorted { $0.key < $1.key }.map(\.value) }
    for run in runs {
      guard let first = run.leases.first else { continue }
      guard let end = end(of: first) else {
        lost.append(run.task)
        continue
      }
      let due = end.adding(timeout / 3 - timeout)
      wake = min(wake, due > now ? due : end)
      if due > now { continue }
      changes += run.leases.map {
        VisibilityChange(handle: $0.handle, timeout: .milliseconds(timeout))
      }
    }
    // What is refused is noticed when the lease ends, or by the next delete.
    for start in stride(from: 0, to: changes.count, by: 100) {
      let part = Array(changes[start..<min(start + 100, changes.count)])
      queue.store.changeVisibility(part, of: queue.id, isFenced: true) { _ in }
    }
    return (wake, lost)
  }
}
