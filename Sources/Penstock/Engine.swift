// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem
internal import Synchronization

/// Log, state and threads of one open store, behind one lock.
///
/// The way of a command: under the lock, `decide` answers with records, each is appended to the
/// open batch and applied to the state; the answer is set aside under the last LSN it depends on.
/// The writer thread writes and syncs the batch and releases the answers in the order of their
/// LSNs. State runs ahead of the disk, answers never do.
///
/// Invariants
/// - I1: the order of records in the log is the order in which they were applied.
/// - I2: no answer is given before everything it tells of is as durable as was asked for.
/// - I3: once `phase` is `.failed`, nothing is written any more.
final class Engine: Sendable {
  /// What runs after the lock is released.
  struct Actions: Sendable {
    var callbacks: [@Sendable () -> Void] = []
    var events: [StoreEvent] = []
    var reads: [ReaderJob] = []
    /// The log's thread has one receive to answer, and nobody else waits for it.
    var isAlone = false
    var ringsWriter = false
    var ringsScheduler = false
    var ringsPreparer = false
    var ringsKeeper = false

    mutating func call<T>(_ completion: @escaping Completion<T>, _ result: Result<T, PenstockError>)
    where T: Sendable {
      callbacks.append { completion(result) }
    }
  }

  enum Phase {
    case running
    case closing([Completion<Void>])
    case failed(PenstockError)
    case closed
  }

  /// An answer that waits for the log.
  struct Pending {
    var lsn: LSN
    /// When its command was taken, by the monotonic clock.
    var since: UInt64
    /// Called with nil once the log is that far, or with the error that ended it.
    var finish: @Sendable (PenstockError?, inout Actions) -> Void
  }

  /// A command that waits for room in the log; answers whether it is done.
  typealias Attempt = @Sendable (Engine, inout Shared, inout Actions) -> Bool

  struct Shared {
    var state: State
    var tail: LogTail
    var phase = Phase.running
    /// Answers by ascending LSN that wait for a sync, and those that wait for a write.
    var synced = Deque<Pending>()
    var written = Deque<Pending>()
    /// LSN of the newest record whose durability somebody asked for.
    var lastSynced: LSN
    var waitingForRoom = Deque<Attempt>()
    var drainsWaitingForRoom = Deque<Attempt>()
    var waiters = Waiters()
    /// Receives that found messages and no room for their leases; ones that ended since included.
    var receivesWaitingForRoom: [ReceiveTicket] = []
    /// Whether messages have outlived their retention and there is no room to log that.
    var isExpiryWaitingForRoom = false
    /// When the scheduler thread will look next.
    var scheduledAt = Timestamp(milliseconds: .max)
    /// Those who wait for the end of a failed store, and why it failed.
    var closers: [Completion<Void>] = []
    var failure: PenstockError?
    /// Queues in which somebody may be served before the lock is released.
    var wakes: [QueueID] = []
    /// Queues whose waiting messages are being read.
    var drawing: Set<QueueID> = []
    /// Draws that are not durable yet: the newest of a queue, and the first message of them all.
    var undurableDraws: [QueueID: (lsn: LSN, first: UInt64)] = [:]
    /// Where messages stand that were parked in segments whose index is not written yet.
    var indexes: [UInt32: SegmentIndex] = [:]
    /// Segments whose index file does not fit them: it is made again when it is asked for.
    var wrongIndexes: Set<UInt32> = []
    /// The newest record and its segment, and the segment of the newest that was written.
    var lastLSN: LSN
    var segment: UInt32
    var writtenSegment: UInt32
    /// Bytes and segments since the newest checkpoint was begun.
    var loggedSince = 0
    var segmentsSince = 0
    /// Segments in which the scrubber found damage.
    var damagedSegments: Set<UInt32> = []
    /// The keeper wants to know when less than this lives.
    var keeperFloor = 0
    /// Bytes that sends and receives may still take while the keeper is behind; nil when it is not.
    var allowance: Int?
    /// The file system is far from full, as of the preparer's last look.
    var hasAmpleSpace = false
    /// When the newest section was entered, by the monotonic clock in nanoseconds.
    var entered: UInt64 = 0
    var metrics: StoreMetrics
    /// To be told when the lock is released; none unless somebody listens.
    var events: [StoreEvent] = []
  }

  let shared: Mutex<Shared>
  /// Taken with the lock held, or alone.
  let catalogue: Mutex<Catalogue>
  let log: SegmentedLog
  let options: StoreOptions
  let handleKey: (UInt64, UInt64)
  let recovery: RecoveryReport
  let clock: any SystemClock
  let random: any RandomSource
  let plantedBug: PlantedBug?
  private let startWall: Int64
  private let startMonotonic: UInt64

  let writerBell = Doorbell()
  let readerBell = Doorbell()
  let schedulerBell = Doorbell()
  let preparerBell = Doorbell()
  let keeperBell = Doorbell()
  let readJobs = Mutex<Deque<ReaderJob>>(Deque())
  let readerWindow = Mutex(ReadWindow())
  let writerWindow = Mutex(ReadWindow())
  let keeperWindow = Mutex(ReadWindow())
  let keeper = Mutex<Keeper>(Keeper())
  let isStopping = Atomic<Bool>(false)

  init(
    state: State, opened: SegmentedLog.Opened, indexes: [UInt32: SegmentIndex],
    options: StoreOptions, environment: StoreEnvironment, recovery: RecoveryReport
  ) {
    log = opened.log
    catalogue = Mutex(Catalogue(state))
    self.options = options
    self.recovery = recovery
    clock = environment.clock
    random = environment.random
    plantedBug = environment.plantedBug
    let file = opened.log.storeFile
    handleKey = (file.keyHigh, file.keyLow)
    // Time goes on from the last record, also if the machine's clock was set back meanwhile.
    startWall = max(environment.clock.wallMilliseconds(), state.time.milliseconds)
    startMonotonic = environment.clock.monotonicNanoseconds()
    let newest = opened.log.segments.keys.max() ?? 0
    var shared = Shared(
      state: state, tail: opened.tail, lastSynced: opened.recovery.lastLSN, indexes: indexes,
      lastLSN: opened.recovery.lastLSN, segment: newest, writtenSegment: newest,
      metrics: StoreMetrics(recovery: recovery))
    // What was replayed need not be replayed again.
    shared.loggedSince = Int(clamping: opened.recovery.replayedBytes)
    shared.segmentsSince = opened.recovery.replayedSegments
    self.shared = Mutex(shared)
  }

  /// The store's time: the wall clock at opening plus what has passed since, so it never goes back.
  var now: Timestamp { time(at: clock.monotonicNanoseconds()) }

  private func time(at monotonic: UInt64) -> Timestamp {
    let elapsed = monotonic &- startMonotonic
    return Timestamp(milliseconds: startWall).adding(Int64(elapsed / 1_000_000))
  }

  // MARK: Critical sections

  /// Looks at the state as of now and changes nothing that is logged.
  func look<Result: Sendable>(_ body: (State) -> Result) -> Result {
    critical { shared, _ in body(shared.state) }
  }

  /// Runs `body` under the lock with time advanced to the present, then what it put into actions.
  @discardableResult
  func critical<Result: Sendable>(_ body: (inout Shared, inout Actions) -> Result) -> Result {
    let entered = clock.monotonicNanoseconds()
    let now = time(at: entered)
    let (result, actions) = shared.withLock { shared -> (Result, Actions) in
      var actions = Actions()
      shared.entered = entered
      advance(&shared, to: now, &actions)
      shared.tail.keepReserve(messages: shared.hasAmpleSpace ? 0 : shared.state.liveCount)
      let result = body(&shared, &actions)
      finishSection(&shared, &actions)
      return (result, actions)
    }
    perform(actions)
    return result
  }

  /// Ends leases and delays, and serves those who waited for that.
  private func advance(_ shared: inout Shared, to now: Timestamp, _ actions: inout Actions) {
    for queue in shared.state.advance(to: now) where shared.waiters.isWaiting(on: queue) {
      serveWaiters(on: queue, &shared, &actions)
    }
  }

  private func finishSection(_ shared: inout Shared, _ actions: inout Actions) {
    // More come meanwhile when messages go to dead letters, but not for ever: no receive moves on
    // what was moved since it began.
    var index = 0
    while index < shared.wakes.count {
      let queue = shared.wakes[index]
      if shared.waiters.isWaiting(on: queue) { serveWaiters(on: queue, &shared, &actions) }
      index += 1
    }
    shared.wakes.removeAll(keepingCapacity: true)
    if !shared.events.isEmpty { swap(&actions.events, &shared.events) }
    actions.ringsWriter = actions.ringsWriter || shared.tail.hasBatches
    if plantedBug == .forgetsTheWriter { actions.ringsWriter = false }
    actions.ringsPreparer =
      actions.ringsPreparer || (shared.tail.needsSegment && !shared.tail.isShortOfSpace)
    if shared.state.liveBytes < shared.keeperFloor {
      shared.keeperFloor = 0
      actions.ringsKeeper = true
    }
    let next = shared.nextLook
    if next < shared.scheduledAt {
      shared.scheduledAt = next
      actions.ringsScheduler = true
    }
  }

  func perform(_ actions: Actions) {
    if actions.ringsWriter { writerBell.ring() }
    if actions.ringsScheduler { schedulerBell.ring() }
    if actions.ringsPreparer { preparerBell.ring() }
    if actions.ringsKeeper { keeperBell.ring() }
    let readsHere = actions.isAlone && isAtHand(actions.reads[0])
    if !actions.reads.isEmpty, !readsHere {
      readJobs.withLock { jobs in for job in actions.reads { jobs.append(job) } }
      readerBell.ring()
    }
    for callback in actions.callbacks { callback() }
    // On the log's thread: the next commit waits for it.
    if readsHere, case .messages(let job) = actions.reads[0] { read(job, writerWindow) }
    for event in actions.events { options.onEvent?(event) }
  }

  /// Runs a command, now or when there is room in the log.
  ///
  /// - Parameters:
  ///   - drains: it may use the reserve, and does not queue behind commands that may not.
  ///   - attempt: does it, or answers false without having changed anything.
  func submit<T: Sendable>(
    drains: Bool, _ completion: @escaping Completion<T>, _ attempt: @escaping Attempt
  ) {
    critical { shared, actions in
      if let error = shared.refusal { return actions.call(completion, .failure(error)) }
      if drains || shared.waitingForRoom.isEmpty, attempt(self, &shared, &actions) { return }
      let guarded: Attempt = { engine, shared, actions in
        guard let error = shared.refusal else { return attempt(engine, &shared, &actions) }
        actions.call(completion, .failure(error))
        return true
      }
      if drains {
        shared.drainsWaitingForRoom.append(guarded)
      } else {
        shared.waitingForRoom.append(guarded)
      }
    }
  }

  /// Tries the commands that wait for room, in order, until one must wait on.
  func retryWaitingForRoom(_ shared: inout Shared, _ actions: inout Actions) {
    while let attempt = shared.drainsWaitingForRoom.first, attempt(self, &shared, &actions) {
      _ = shared.drainsWaitingForRoom.popFirst()
    }
    retryReceives(&shared, &actions)
    shared.isExpiryWaitingForRoom = false
    while let attempt = shared.waitingForRoom.first, attempt(self, &shared, &actions) {
      _ = shared.waitingForRoom.popFirst()
    }
  }

  // MARK: Records

  /// Appends a record and applies it; there must be room.
  ///
  /// - Parameter synced: whether anybody will wait for its sync.
  func append(_ entry: Entry, synced: Bool, _ shared: inout Shared) -> LSN {
    append(entry, payload: entry.payloadSize(), synced: synced, &shared) { entry.encode(into: $0) }
  }

  /// As above, with the bytes put by `encode`.
  func append(
    _ entry: Entry, payload: Int, content: Int = 0, synced: Bool, _ shared: inout Shared,
    _ encode: (CommitBuffer) -> Void
  ) -> LSN {
    let (lsn, position) = shared.tail.append(payload: payload, synced: synced, encode)
    if synced { shared.lastSynced = lsn }
    shared.lastLSN = lsn
    if position.segment != shared.segment {
      shared.segment = position.segment
      shared.segmentsSince += 1
    }
    let size = LogFormat.recordSize(payload: payload)
    shared.loggedSince += size
    do throws(RecordError) {
      let parked = try shared.state.apply(
        entry, lsn: lsn.value, position: position.packed, size: size, content: content)
      if let parked { shared.indexes[parked.segment, default: SegmentIndex()].append(parked) }
      switch entry.record {
      case .queueCreated, .queueChanged, .queueDeleted:
        catalogue.withLock { $0.follow(entry.queue, in: shared.state) }
      case .transferred(let moved) where options.onEvent != nil:
        shared.noteDeadLetter(entry.queue, moved.target)
      default: break
      }
    } catch {
      // `decide` and `apply` disagree: a fault of this code. What is in memory is no longer what
      // the log says, so the store must not go on; a reopening reads what was logged.
      preconditionFailure("a record was refused by the state that decided it: \(error.description)")
    }
    return lsn
  }

  /// Sets an answer aside until everything up to `lsn` is as durable as asked.
  func answer(
    after lsn: LSN, synced: Bool, _ shared: inout Shared, _ actions: inout Actions,
    _ finish: @escaping @Sendable (PenstockError?, inout Actions) -> Void
  ) {
    let reached = synced ? shared.tail.durableLSN : shared.tail.writtenLSN
    if lsn <= reached || plantedBug == .answersBeforeSync {
      finish(nil, &actions)
    } else if let error = shared.writingEnded {
      finish(error, &actions)
    } else {
      let last = (synced ? shared.synced.last : shared.written.last)?.lsn ?? lsn
      let pending = Pending(lsn: max(lsn, last), since: shared.entered, finish: finish)
      if synced { shared.synced.append(pending) } else { shared.written.append(pending) }
    }
  }

  var isSynced: Bool { options.durability == .synced }

  /// Releases the answers that the log has reached.
  func releaseAnswers(_ shared: inout Shared, _ actions: inout Actions) {
    while let first = shared.written.first, first.lsn <= shared.tail.writtenLSN {
      _ = shared.written.popFirst()
      shared.countWait(first)
      first.finish(nil, &actions)
    }
    let before = actions.callbacks.count
    while let first = shared.synced.first, first.lsn <= shared.tail.durableLSN {
      _ = shared.synced.popFirst()
      shared.countWait(first)
      first.finish(nil, &actions)
    }
    if plantedBug == .answersOutOfOrder { actions.callbacks[before...].reverse() }
    actions.isAlone =
      actions.reads.count == 1 && actions.callbacks.isEmpty && shared.synced.isEmpty
      && shared.written.isEmpty
  }

  /// Ends writing for good: what waits for the log has an unknown outcome, what comes is refused
  /// (L2).
  func fail(_ stage: String, _ cause: any Error) {
    let error = PenstockError(
      .storeFailed,
      "\(stage) failed: \(cause). Nothing more is written; reads go on. Close the store and "
        + "open it again: what was acknowledged is there.")
    critical { shared, actions in
      switch shared.phase {
      case .failed, .closed: return
      case .closing(let completions):
        // They are told once the directory is released, by the writer.
        shared.closers += completions
        shared.failure = error
        actions.ringsWriter = true
      case .running: break
      }
      shared.phase = .failed(error)
      let unknown = PenstockError(
        .outcomeUnknown,
        "\(stage) failed while this operation was being made durable: it may have happened or not. "
          + "Opening the store again will tell.")
      for pending in shared.written.removeAll() { pending.finish(unknown, &actions) }
      for pending in shared.synced.removeAll() { pending.finish(unknown, &actions) }
      for waiter in shared.waiters.removeAll() { actions.call(waiter.completion, .failure(error)) }
      retryWaitingForRoom(&shared, &actions)
      if options.onEvent != nil { shared.events.append(.failed(error)) }
    }
    options.log?(error.description)
  }
}

extension Engine.Shared {
  /// Why a command is not taken at all; nil when it is.
  var refusal: PenstockError? {
    switch phase {
    case .running: nil
    case .closing, .closed:
      PenstockError(.closed, "the store is closed or closing; open it again to use it")
    case .failed(let error): error
    }
  }

  /// Why nothing more will become durable; nil as long as it may.
  var writingEnded: PenstockError? {
    switch phase {
    case .running, .closing: nil
    case .failed, .closed: refusal
    }
  }

  /// Lets receives of a queue be served before the lock is released.
  mutating func wake(_ queue: QueueID) { if wakes.last != queue { wakes.append(queue) } }

  /// Counts what is taken while the keeper is behind.
  mutating func spend(_ bytes: Int) { if let allowance { self.allowance = allowance - bytes } }

  /// Another section may have been entered earlier and got the lock later.
  mutating func countWait(_ pending: Engine.Pending) {
    metrics.commitWaits.record(entered > pending.since ? entered - pending.since : 0)
  }

  /// When the scheduler has something to do again.
  var nextLook: Timestamp {
    var next = Timestamp(milliseconds: .max)
    // An expiry that cannot be logged must not keep the thread awake.
    if case .running = phase, !isExpiryWaitingForRoom { next = state.nextExpiry ?? next }
    if let deadline = waiters.nextDeadline { next = min(next, deadline) }
    if !waiters.isEmpty || state.hasStrays { next = min(next, state.nextTimer ?? next) }
    return next
  }
}

extension PenstockError {
  static let full = PenstockError(
    .storeFull,
    "the disk is full: messages can be received and deleted, but none can be sent until there is "
      + "space again")

  init(_ refusal: Refusal) {
    switch refusal {
    case .queueNotFound: self.init(.queueNotFound, "there is no such queue")
    case .queueExists(let setting):
      self.init(
        .queueExists, "a queue of this name exists with another \(setting)", setting: setting)
    case .invalidHandle: self.init(.invalidHandle, "the handle belongs to another queue")
    case .messageNotFound:
      self.init(.messageNotFound, "the message was deleted, purged or has expired")
    case .leaseLimitExceeded:
      self.init(.leaseLimitExceeded, "the lease would last longer in all than is allowed")
    case .messageTooLarge(let limit):
      self.init(
        .messageTooLarge, "the message is larger than the queue's \(limit) bytes", limit: limit)
    case .groupMissing:
      self.init(.invalidArgument, "a message for a FIFO queue needs a group")
    case .kindIsFixed:
      self.init(.invalidArgument, "a queue is FIFO, or is not, from its creation on")
    case .priorityInGroup:
      self.init(.invalidArgument, "a FIFO queue has no priorities: its groups have an order")
    case .queueFull(let setting, let limit):
      self.init(
        .queueFull, "the queue holds as much as its \(setting) allows", limit: limit,
        setting: setting)
    case .moveIsImpossible:
      self.init(
        .invalidArgument, "messages are moved to another queue of the same kind",
        setting: .isFIFO)
    case .moveIsRunning:
      self.init(.moveTaskActive, "a move task of this queue is running; cancel it, or wait")
    case .taskNotFound: self.init(.moveTaskNotFound, "there is no such move task")
    case .taskIsOver: self.init(.moveTaskOver, "the move task is over")
    case .leaseLost:
      self.init(.leaseLost, "the lease has ended, or the message was received again since")
    case .deadLetterCountMissing:
      self.init(
        .invalidArgument, "a dead-letter queue needs maximumReceives of at least 1",
        setting: .maximumReceives)
    case .deadLetterQueueMissing:
      self.init(.deadLetterQueueNotFound, "there is no such dead-letter queue")
    case .deadLetterQueueOfAnotherKind:
      self.init(
        .invalidArgument, "FIFO queues have FIFO dead-letter queues, others have others",
        setting: .deadLetterQueue)
    case .deadLetterQueueRefuses:
      self.init(.deadLetterRefused, "the dead-letter queue does not take messages of this queue")
    case .outOfQueueNumbers:
      self.init(.storeFull, "the store has used up its numbers for queues; use another store")
    }
  }

  init(_ error: LogError) {
    switch error {
    case .corrupted: self.init(.corrupted, error.description)
    case .system: self.init(.inputOutput, error.description)
    case .inUse: self.init(.storeInUse, error.description)
    case .notAStore: self.init(.storeNotFound, error.description)
    case .unsupportedVersion: self.init(.storeNotFound, error.description)
    case .invalidOption: self.init(.invalidArgument, error.description)
    }
  }
}
