// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockSystem
internal import Synchronization

/// One call of `Queue.consume`.
///
/// Handlers run in tasks of their own, not in children of the caller's: those would be cancelled
/// with it, and could not finish.
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
    /// Leases are being extended: none is taken out meanwhile (I2).
    var isBeating = false
    var failure: PenstockError?
    /// The loop, when it waits for a change.
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
    let heart = Task(executorPreference: executor) { await self.beat() }
    await withTaskCancellationHandler {
      await receive()
    } onCancel: {
      stop(nil)
    }
    let limit = Task(executorPreference: executor) { await self.limitDrain() }
    await wait { $0.runs.isEmpty }
    for task in [heart, limit] {
      task.cancel()
      await task.value
    }
    if let failure = state.withLock({ $0.failure }) { throw failure }
  }

  /// Ends the receiving; closing is no failure.
  func stop(_ error: PenstockError?) {
    change { state in
      state.isStopping = true
      if error?.code != .closed { state.failure = state.failure ?? error }
    }
  }

  // MARK: The loop

  private func receive() async {
    while true {
      await wait { $0.free > 0 || $0.isStopping }
      let (free, isStopping) = state.withLock { ($0.free, $0.isStopping) }
      if isStopping { return }
      do throws(PenstockError) {
        let leases = try await queue.receive(
          maximum: min(free, engine.options.maximumReceive), wait: .seconds(20),
          visibilityTimeout: .milliseconds(timeout))
        start(leases)
        if queue.store.isClosed { stop(nil) }
      } catch {
        switch error.code {
        // It was logged, and those behind it must not wait for it.
        case .unreadableMessage: break
        case .storeFull: await waitForSpace()
        default: stop(error)
        }
      }
    }
  }

  private func start(_ leases: [Lease]) {
    var runs: [[Lease]] = []
    var places: [String: Int] = [:]
    for lease in leases {
      if isFIFO, let group = lease.message.content.groupID {
        if let place = places[group] {
          runs[place].append(lease)
          continue
        }
        places[group] = runs.count
      }
      runs.append([lease])
    }
    change { state in
      for leases in runs {
        state.lastRun += 1
        let number = state.lastRun
        state.free -= leases.count
        let task = Task(executorPreference: executor) { await self.work(number) }
        state.runs[number] = Run(leases: leases[...], places: leases.count, task: task)
      }
    }
  }

  private func change<T>(_ body: (inout State) -> sending T) -> sending T {
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

  private func waitForSpace() async {
    await engine.clock.sleep(.nanoseconds(Int64(Engine.fullDiskRetry)))
  }

  private func limitDrain() async {
    guard let drainLimit else { return }
    // A century at most, so that clocks which count nanoseconds do not overflow.
    await engine.clock.sleep(min(max(.zero, drainLimit), .seconds(100 * 365 * 86_400)))
    if Task.isCancelled { return }
    for task in state.withLock({ $0.runs.values.map(\.task) }) { task.cancel() }
  }

  // MARK: Handling

  private func work(_ number: UInt64) async {
    var delay = Duration.zero
    while let lease = next(of: number) {
      do { try await handler(lease, self) } catch {
        if !Task.isCancelled {
          delay = max(.zero, retryDelay(lease, error))
          engine.options.log?(
            "message with LSN \(lease.handle.message) was not handled, attempt \(lease.attempt), "
              + "and is given back: \(error)")
        }
        break
      }
      if Task.isCancelled { break }
      _ = await take(1, from: number)
      guard await delete(lease) else { break }
      change { state in
        state.runs[number]?.places -= 1
        state.free += 1
      }
    }
    await giveBack(await take(.max, from: number), delay)
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
  private func take(_ count: Int, from number: UInt64) async -> ArraySlice<Lease> {
    while true {
      let taken = state.withLock { state -> ArraySlice<Lease>? in
        if state.isBeating { return nil }
        let taken = state.runs[number]?.leases.prefix(count) ?? []
        state.runs[number]?.leases.removeFirst(taken.count)
        return taken
      }
      if let taken { return taken }
      await Task.yield()
    }
  }

  /// Deletes a message whose work is done, if it is still ours; false when that failed.
  private func delete(_ lease: Lease) async -> Bool {
    while end(of: lease) != nil {
      do throws(PenstockError) {
        try await lease.delete()
        return true
      } catch {
        if error.code == .storeFull {
          await waitForSpace()
        } else {
          stop(error)
          return false
        }
      }
    }
    return false
  }

  /// Makes messages visible: the first, whose handler failed, after a delay.
  private func giveBack(_ leases: ArraySlice<Lease>, _ delay: Duration) async {
    let changes = leases.indices.filter { end(of: leases[$0]) != nil }.map { index in
      VisibilityChange(
        handle: leases[index].handle, timeout: index == leases.startIndex ? delay : .zero)
    }
    if changes.isEmpty { return }
    do throws(PenstockError) {
      _ = try await awaited { queue.store.changeVisibility(changes, of: queue.id, $0) }
    } catch {
      // On a full disk they come back when their leases end.
      if error.code != .storeFull { stop(error) }
    }
  }

  // MARK: Leases

  /// When a lease ends; nil when it is lost.
  private func end(of lease: Lease) -> Timestamp? {
    engine.look { $0.leaseEnd(lease.handle) }
  }

  /// Extends leases in time, and cancels handlers that have lost theirs.
  private func beat() async {
    while !Task.isCancelled {
      if queue.store.isClosed { stop(nil) }
      let wake = extendLeases(engine.now)
      await engine.clock.sleep(.milliseconds(max(1, wake.milliseconds - engine.now.milliseconds)))
    }
  }

  /// - Returns: when to look again.
  private func extendLeases(_ now: Timestamp) -> Timestamp {
    let runs = state.withLock { state in
      state.isBeating = true
      return state.runs.sorted { $0.key < $1.key }.map(\.value)
    }
    var wake = now.adding(timeout / 3)
    var due: [VisibilityChange] = []
    var lost: [Task<Void, Never>] = []
    for run in runs {
      guard let first = run.leases.first else { continue }
      guard let end = end(of: first) else {
        lost.append(run.task)
        continue
      }
      let time = end.adding(timeout / 3 - timeout)
      wake = min(wake, time > now ? time : end)
      if time > now { continue }
      due += run.leases.map {
        VisibilityChange(handle: $0.handle, timeout: .milliseconds(timeout))
      }
    }
    // What is refused is noticed when the lease ends, or with the next delete.
    for start in stride(from: 0, to: due.count, by: 100) {
      let part = Array(due[start..<min(start + 100, due.count)])
      queue.store.changeVisibility(part, of: queue.id) { _ in }
    }
    state.withLock { $0.isBeating = false }
    for task in lost { task.cancel() }
    return wake
  }
}
