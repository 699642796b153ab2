// SPDX-License-Identifier: Apache-2.0
internal import CPenstock
internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#else
  internal import Darwin
#endif

/// An event that one thread waits for and any thread rings; a wait that succeeds takes the ring
/// away.
///
/// Rings do not add up: two of them before a wait wake it once, so whoever wakes looks for all the
/// work there is. Everything done before `ring` is visible after the `wait` that it ends. Several
/// threads may wait; one ring wakes one of them. Ringing costs one atomic operation when nobody
/// waits, and so does waiting when it has already rung.
///
/// Invariants
/// - I1: a waiter raises `waiters` before it looks at `rung`; a ringer sets `rung` before it looks
///   at `waiters`. Both orders are sequentially consistent, so at least one of the two sees the
///   other.
/// - I2: a waiter holds the mutex from its look at `rung` until it sleeps, so a ringer that saw it
///   and takes the mutex cannot signal in between.
///
/// Unchecked and safe: the pointers never change nor leave, and point to the system's own lock.
@safe public final class Doorbell: @unchecked Sendable {
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>
  private let rung = Atomic<Bool>(false)
  private let waiters = Atomic<Int>(0)

  /// A doorbell that has not rung.
  public init() {
    // unsafe: both need a fixed address; they are freed in deinit, when nobody can wait any more.
    unsafe mutex = .allocate(capacity: 1)
    unsafe condition = .allocate(capacity: 1)
    unsafe mutex.initialize(to: pthread_mutex_t())
    unsafe condition.initialize(to: pthread_cond_t())
    var result = unsafe pthread_mutex_init(mutex, nil)
    precondition(result == 0, "pthread_mutex_init failed: \(result)")
    #if canImport(Darwin)
      result = unsafe pthread_cond_init(condition, nil)
    #else
      var attributes = pthread_condattr_t()
      unsafe pthread_condattr_init(&attributes)
      unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
      result = unsafe pthread_cond_init(condition, &attributes)
      unsafe pthread_condattr_destroy(&attributes)
    #endif
    precondition(result == 0, "pthread_cond_init failed: \(result)")
  }

  deinit {
    // unsafe: the last reference is gone, so no thread is inside a call.
    unsafe pthread_cond_destroy(condition)
    unsafe pthread_mutex_destroy(mutex)
    unsafe condition.deallocate()
    unsafe mutex.deallocate()
  }

  /// Ends one wait: the present one, or else the next.
  public func ring() {
    if rung.exchange(true, ordering: .sequentiallyConsistent) { return }
    if waiters.load(ordering: .sequentiallyConsistent) == 0 { return }
    // unsafe: initialised in init.
    // Whoever waits holds the lock from looking at `rung` until it sleeps, so after this it sleeps
    // or has seen it; and signalled outside the lock it does not wake only to wait for the lock.
    unsafe pthread_mutex_lock(mutex)
    unsafe pthread_mutex_unlock(mutex)
    unsafe pthread_cond_signal(condition)
  }

  /// Whether it has rung and nobody took that.
  package var isRung: Bool { rung.load(ordering: .sequentiallyConsistent) }

  /// Takes a ring without waiting; false when there is none.
  package func take() -> Bool { rung.exchange(false, ordering: .sequentiallyConsistent) }

  /// Waits for a ring.
  public func wait() { _ = wait { unsafe pthread_cond_wait(condition, mutex) } }

  /// Waits for a ring at most so long, by a clock that nobody sets.
  ///
  /// - Returns: true when it rang, false when the time is over.
  public func wait(nanoseconds: UInt64) -> Bool {
    // Decades at most, which the sum has room for.
    let end = Self.now() + Int(min(nanoseconds, 1 << 61))
    return wait {
      #if canImport(Darwin)
        var left = timespec(nanoseconds: max(0, end - Self.now()))
        return unsafe pthread_cond_timedwait_relative_np(condition, mutex, &left)
      #else
        var time = timespec(nanoseconds: end)
        return unsafe pthread_cond_timedwait(condition, mutex, &time)
      #endif
    }
  }

  /// Sleeps by `sleep`, which may wake for no reason, until rung (true) or until it gives
  /// `ETIMEDOUT` (false).
  private func wait(_ sleep: () -> CInt) -> Bool {
    if rung.exchange(false, ordering: .sequentiallyConsistent) { return true }
    // unsafe: initialised in init.
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    waiters.add(1, ordering: .sequentiallyConsistent)
    defer { waiters.subtract(1, ordering: .sequentiallyConsistent) }
    while !rung.exchange(false, ordering: .sequentiallyConsistent) {
      if sleep() == ETIMEDOUT { return rung.exchange(false, ordering: .sequentiallyConsistent) }
    }
    return true
  }

  /// Nanoseconds.
  private static func now() -> Int {
    var time = timespec()
    // unsafe: the result is written to a local.
    _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
  }
}

extension timespec {
  fileprivate init(nanoseconds: Int) {
    self.init(tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
  }
}

/// A thread of the system, for work that blocks and so must stay off the cooperative pool.
public final class SystemThread: Sendable {
  // Unchecked: the handle is only ever used under the mutex; it is a pointer on some systems.
  private struct Handle: @unchecked Sendable {
    var thread: pthread_t
  }

  /// What the new thread does.
  private final class Start: Sendable {
    let body: @Sendable () -> Void

    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Nil once the thread was joined.
  private let handle: Mutex<Handle?>

  /// Starts a thread that runs `body` and ends. `name` is for debuggers, who see 15 bytes of it.
  ///
  /// - Throws: `EAGAIN` when the system has no room for another thread.
  public init(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    // unsafe: the thread takes the reference over; if none was started it is released here.
    let start = unsafe Unmanaged.passRetained(
      Start {
        Self.setName(name)
        body()
      })
    #if canImport(Darwin)
      var thread: pthread_t?
    #else
      var thread = pthread_t()
    #endif
    let result = unsafe pthread_create(&thread, nil, Self.main, start.toOpaque())
    guard result == 0 else {
      unsafe start.release()
      throw SystemError(call: "pthread_create", path: name, errno: result)
    }
    #if canImport(Darwin)
      handle = Mutex(thread.map { Handle(thread: $0) })
    #else
      handle = Mutex(Handle(thread: thread))
    #endif
  }

  /// A thread that nobody joined runs on and cleans up after itself.
  deinit {
    handle.withLock { handle in
      if let handle { _ = pthread_detach(handle.thread) }
    }
  }

  /// Lets others run that wait for this processor.
  public static func yield() { sched_yield() }

  /// Waits until the thread has ended. Calling it again does nothing; calling it on the thread
  /// itself would wait for ever and stops the program instead.
  public func join() {
    handle.withLock { handle in
      guard let joined = handle else { return }
      let result = pthread_join(joined.thread, nil)
      precondition(result == 0, "pthread_join failed: \(result)")
      handle = nil
    }
  }

  #if canImport(Darwin)
    private static let main: @convention(c) (UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? =
      {
        unsafe run($0)
        return nil
      }
  #else
    private static let main: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? =
      {
        if let start = unsafe $0 { unsafe run(start) }
        return nil
      }
  #endif

  @unsafe private static func run(_ pointer: UnsafeMutableRawPointer) {
    unsafe Unmanaged<Start>.fromOpaque(pointer).takeRetainedValue().body()
  }
  /// Names the calling thread. A name that cannot be set is no reason not to run.
  private static func setName(_ name: String) {
    #if canImport(Darwin)
      _ = unsafe pthread_setname_np(name)
    #else
      // unsafe: both calls use their argument during the call only.
      let descriptor = unsafe penstock_open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC, 0)
      if descriptor < 0 { return }
      let bytes = Array(name.utf8.prefix(15))
      _ = unsafe write(descriptor, bytes, bytes.count)
      _ = close(descriptor)
    #endif
  }
}
