// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#else
  internal import Darwin
#endif

/// A task executor that runs one job at a time, on the thread of its caller, and chooses the next
/// one by seed: the same program takes the same way for the same seed.
///
/// ```swift
/// let executor = SeededExecutor(seed: 7)
/// let task = Task(executorPreference: executor) { await program() }
/// executor.drain()
/// ```
///
/// Child tasks (`async let`, task groups), default actors and `@concurrent` functions stay on the
/// executor of the task that they work for. What leaves it: a `Task { }` without a preference, a
/// detached task, an actor with an executor of its own such as the main actor, a sleep on a real
/// clock. `hasForeignJobs` tells when something came back from there.
public final class SeededExecutor: TaskExecutor {
  private struct State {
    var jobs: [UnownedJob] = []
    /// The thread that runs jobs just now, and how many runs are nested on it.
    var thread: UInt = 0
    var depth = 0
    var hasForeignJobs = false
  }

  private let state = Mutex(State())
  private let random: StableRandom

  /// An executor without jobs.
  public init(seed: UInt64) { random = StableRandom(seed: seed) }

  /// Takes a job; called by the runtime.
  public func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    let thread = Self.thread
    state.withLock { state in
      if state.depth > 0, state.thread != thread { state.hasForeignJobs = true }
      state.jobs.append(job)
    }
  }

  /// How many jobs could run now.
  public var readyCount: Int { state.withLock { $0.jobs.count } }

  /// Whether a thread other than the one that ran jobs added one: the run is no function of its
  /// seed.
  public var hasForeignJobs: Bool { state.withLock { $0.hasForeignJobs } }

  /// Runs one job, chosen by seed. False when there is none.
  @discardableResult
  public func runNext() -> Bool {
    let count = readyCount
    guard count > 0 else { return false }
    runJob(at: random.below(count))
    return true
  }

  /// Runs jobs until there is none.
  ///
  /// - Returns: how many.
  @discardableResult
  public func drain() -> Int {
    holdThread()
    defer { releaseThread() }
    var count = 0
    while runNext() { count += 1 }
    return count
  }

  /// Runs the job of a place in the order of arrival.
  func runJob(at index: Int) {
    let job = state.withLock { $0.jobs.remove(at: index) }
    // unsafe: the reference lives as long as the call, and so does the executor.
    unsafe job.runSynchronously(on: asUnownedTaskExecutor())
  }

  /// The place of a job that lets an actor go on, rather than a task outside of actors.
  var actorJob: Int? {
    // What an actor enqueues for itself has no task, and the description is what says so.
    state.withLock { $0.jobs.firstIndex { $0.description.hasSuffix("(id: nil)") } }
  }

  /// From now on jobs that other threads add are foreign.
  func holdThread() {
    let thread = Self.thread
    state.withLock { state in
      state.thread = thread
      state.depth += 1
    }
  }

  func releaseThread() { state.withLock { $0.depth -= 1 } }

  private static var thread: UInt {
    #if canImport(Glibc)
      pthread_self()
    #else
      // unsafe: only compared.
      unsafe UInt(bitPattern: pthread_self())
    #endif
  }
}
