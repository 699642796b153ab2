// SPDX-License-Identifier: Apache-2.0
@_exported public import PenstockCore
internal import PenstockLog
public import PenstockSystem
internal import Synchronization

/// The end of an operation: called once, on a thread of the store or before the call returns. It
/// must not block; what takes long belongs elsewhere.
public typealias Completion<T> = @Sendable (Result<T, PenstockError>) -> Void

/// What an acknowledgement means.
public enum Durability: String, Sendable, Hashable {
  /// On disk: it survives the loss of power. The default.
  case synced
  /// With the operating system: it survives the end of the process, not the loss of power.
  case written
}

/// How a store is opened.
public struct StoreOptions: Sendable {
  /// What an acknowledgement of a send, a delete or a change of a queue means.
  public var durability = Durability.synced
  /// Size of a segment file of the log in bytes: a multiple of 4096 from 64 KiB to 1 GiB. Two such
  /// files are the least disk that a store takes.
  public var segmentSize = 32 << 20
  /// Memory for the newest bytes of the log, which are written past the system's page cache: so
  /// what was just sent is received without reading it from the disk. Less than 128 KiB is none.
  public var recentBytes = 4 << 20
  /// How many bytes of sealed segments are verified per second in the background; 0 for none.
  public var scrubBytesPerSecond = 0
  /// How many bytes of live messages are copied per second, so that segments which are mostly dead
  /// can be removed. When much more disk is used than is needed, it is not kept to.
  public var compactionBytesPerSecond = 64 << 20
  /// Waiting messages of a queue that are kept in memory; those behind them are read ahead of need.
  package var window = 1024
  /// Disk use is compacted when it is above twice what lives and so many segments.
  package var spareSegments = 2
  /// Most messages that one receive may take.
  public var maximumReceive = 1000
  /// Seals and opens the messages of queues with an `encryptionKey`. Without one they take no
  /// sends, and what is sealed in the store cannot be received.
  public var cipher: (any ContentCipher)?
  /// Takes what an operator should read: a full disk, a failed store, an unreadable message. Called
  /// on threads of the store; must not block.
  public var log: (@Sendable (String) -> Void)?
  /// Takes what happens rarely, as values. Called on threads of the store or in a call of it,
  /// without its lock; must not block.
  public var onEvent: (@Sendable (StoreEvent) -> Void)?
  /// A sync of the log that takes longer is an event.
  public var slowSync = Duration.seconds(1)
  /// How far the machine's clock may be ahead of the store's newest record when that costs
  /// messages: a store with a queue whose messages would all expire is not opened then, because the
  /// clock may be wrong. Nil for a store that may have rested for any time.
  public var maximumClockJump: Duration? = .seconds(180 * 86_400)

  /// The defaults.
  public init() {}
}

/// What a store needs of its surroundings; tests replace it.
public struct StoreEnvironment: Sendable {
  /// Where the files are.
  public var fileSystem: any FileSystem
  /// What time is taken from.
  public var clock: any SystemClock
  /// Where ids and keys come from.
  public var random: any RandomSource
  package var plantedBug: PlantedBug?
  /// A planted bug of replay: changes a record, and answers how often it is applied.
  package var replaying: (@Sendable (inout Entry) -> Int)?

  /// The machine's own.
  public init() {
    self.init(fileSystem: PosixFileSystem(), clock: RealClock(), random: SystemRandom())
  }

  /// Surroundings of your own.
  public init(fileSystem: any FileSystem, clock: any SystemClock, random: any RandomSource) {
    self.fileSystem = fileSystem
    self.clock = clock
    self.random = random
  }
}

/// A durable store of queues in one directory, used by one process at a time.
///
/// An operation's answer comes when its effect is as durable as `durability` says; a receiver never
/// sees a message whose send could still vanish. The methods that take a completion are the whole
/// API; the `async` ones and `Queue` rest on them.
///
/// Call `close` when done. A store that is dropped without it closes itself later, on its own
/// threads.
public final class Store: Sendable {
  let engine: Engine

  init(engine: Engine) { self.engine = engine }

  deinit { engine.close { _ in } }

  // MARK: Opening

  /// Opens the store in a directory, or makes one there. Reads the newest checkpoint and the log
  /// behind it.
  ///
  /// - Durability: on return everything that the store shows is durable.
  /// - Throws: `.storeInUse` when somebody else has it open; `.corrupted` when acknowledged data is
  ///   damaged or missing, with the place; `.inputOutput` when a file cannot be read;
  ///   `.storeNotFound` when the directory holds something else; `.clockJumped`, see
  ///   `StoreOptions.maximumClockJump`. Nothing acknowledged is changed in any of these cases.
  public static func open(
    at path: String, options: StoreOptions = StoreOptions(),
    environment: StoreEnvironment = StoreEnvironment()
  ) async throws(PenstockError) -> Store {
    try await onThread(named: "penstock-open") { () throws(PenstockError) in
      try openBlocking(at: path, options: options, environment: environment)
    }
  }

  /// As `open`, on the calling thread.
  public static func openBlocking(
    at path: String, options: StoreOptions = StoreOptions(),
    environment: StoreEnvironment = StoreEnvironment()
  ) throws(PenstockError) -> Store {
    let engine = try openEngine(at: path, options: options, environment: environment)
    do throws(SystemError) { try engine.start() } catch {
      engine.log.close()
      throw PenstockError(.inputOutput, error.description)
    }
    return Store(engine: engine)
  }

  /// As `openBlocking`, with a driver in the place of the store's threads.
  package static func openDriven(
    at path: String, options: StoreOptions, environment: StoreEnvironment
  ) throws(PenstockError) -> (Store, StoreDriver) {
    let engine = try openEngine(at: path, options: options, environment: environment)
    return (Store(engine: engine), StoreDriver(engine))
  }

  private static func openEngine(
    at path: String, options: StoreOptions, environment: StoreEnvironment
  ) throws(PenstockError) -> Engine {
    let began = environment.clock.monotonicNanoseconds()
    var state = State()
    var indexes: [UInt32: SegmentIndex] = [:]
    state.window = options.window
    var logOptions = LogOptions()
    logOptions.segmentSize = options.segmentSize
    logOptions.recentBytes = options.recentBytes
    logOptions.plantedBug = environment.plantedBug
    logOptions.progress = { options.onEvent?(.recovering(segments: $0, of: $1)) }
    let opened: SegmentedLog.Opened
    do throws(LogError) {
      opened = try SegmentedLog.open(
        directory: path, options: logOptions, fileSystem: environment.fileSystem,
        random: environment.random, clock: environment.clock,
        restore: { body in
          do throws(RecordError) {
            state = try State(body)
            state.window = options.window
            if environment.plantedBug == .forgetsTimersOfCheckpoints { state.forgetTimers() }
            return nil
          } catch {
            return error.description
          }
        }
      ) { (place, payload) throws(LogError) in
        do throws(RecordError) {
          var entry = try Entry(payload)
          if place.isInCheckpoint {
            let parked = entry.parked(place, payload)
            if let parked { indexes[parked.segment, default: SegmentIndex()].append(parked) }
            return
          }
          let copies = environment.plantedBug == .copiesTransfers
          for _ in 0..<(environment.replaying?(&entry) ?? 1) {
            let copied = copies ? state.resident(of: entry) : nil
            let parked = try state.apply(
              entry, lsn: place.lsn.value, position: place.position.packed,
              size: LogFormat.recordSize(payload: payload.byteCount))
            if let parked { indexes[parked.segment, default: SegmentIndex()].append(parked) }
            if let copied { try state.copy(copied, entry, lsn: place.lsn.value) }
          }
        } catch {
          throw .damaged(place, error)
        }
      }
    } catch {
      throw PenstockError(error)
    }
    // What lives in segments before the checkpoint was not read; that they are there can be known.
    let segments = opened.log.segments
    for segment in state.residents.keys.sorted()
    where segments[segment] == nil && environment.plantedBug != .ignoresMissingSegments {
      let count = state.residents[segment]?.count ?? 0
      opened.log.close()
      throw PenstockError(
        .corrupted,
        "segment number \(segment) is missing: \(count) messages were in it. `penstock salvage` "
          + "shows what the others hold")
    }
    let jump =
      Duration.milliseconds(environment.clock.wallMilliseconds())
      - .milliseconds(state.time.milliseconds)
    let outlived = state.outlived(jump)
    if let limit = options.maximumClockJump, jump > limit, outlived > 0 {
      opened.log.close()
      throw PenstockError(
        .clockJumped,
        "the machine's clock is \(jump.components.seconds / 86_400) days ahead of the store's "
          + "newest record: \(outlived) messages would expire at once. Nothing was changed. Set "
          + "the clock; if it is right, open the store with another maximumClockJump")
    }
    let elapsed = environment.clock.monotonicNanoseconds() &- began
    let report = RecoveryReport(
      opened.recovery, queues: state.queueCount, messages: state.liveCount,
      nanoseconds: elapsed, clockJump: state.time.milliseconds == 0 ? .zero : jump)
    state.forgetTraffic()
    options.onEvent?(.recovered(report))
    return Engine(
      state: state, opened: opened, indexes: indexes, options: options, environment: environment,
      recovery: report)
  }

  /// The store's directory.
  public var path: String { engine.log.directory }
  /// What an acknowledgement means, as the store was opened.
  public var durability: Durability { engine.options.durability }
  /// What opening found.
  public var recovery: RecoveryReport { engine.recovery }
  /// The store's time, which all deadlines are measured by. It never goes back.
  public var now: Timestamp { engine.now }

  // MARK: Looking

  /// The queue of this name as it is in memory, without waiting for anything, nor for who is busy
  /// with the store. It may show a change that is not durable yet; what is done with the queue
  /// waits for that change.
  public func lookup(_ name: String) -> QueueListing? { engine.catalogue.withLock { $0[name] } }

  /// The queue with its counts, which may not be durable yet; nil when there is no such queue.
  public func lookup(_ id: QueueID) -> QueueDescription? { engine.look { $0.describe(id) } }

  /// Names of queues that begin with `prefix`, ascending, after `after`, at most `limit`.
  public func queueNames(prefix: String = "", after: String? = nil, limit: Int = .max) -> [String] {
    engine.look { $0.queueNames(prefix: prefix, after: after, limit: limit) }
  }

  /// Names of queues whose dead-letter queue has this name, ascending, after `after`.
  public func deadLetterSources(
    of name: String, after: String? = nil, limit: Int = .max
  ) -> [String] {
    engine.look { $0.deadLetterSources(of: name, after: after, limit: limit) }
  }

  /// A lease handle as text for clients that are not in this process. Valid as long as the store
  /// lives, also after a restart.
  public func receiptHandle(for handle: LeaseHandle) -> String { engine.text(of: handle) }

  /// Nil when the text is no handle that this store gave out.
  public func leaseHandle(from receiptHandle: String) -> LeaseHandle? {
    engine.handle(from: receiptHandle)
  }

  /// Whether parked messages are being taken into memory.
  package var isDrawing: Bool { engine.shared.withLock { !$0.drawing.isEmpty } }

  /// LSN of the newest record, durable or not.
  package var lastLSN: UInt64 { engine.shared.withLock { $0.tail.nextLSN.value - 1 } }

  /// Equal for stores with equal contents.
  package var stateHash: UInt64 { engine.look { $0.stateHash() } }

  /// The first invariant of the state that does not hold, in words; nil when all do.
  package var brokenInvariant: String? { engine.look { $0.brokenInvariant() } }

  /// Looks at the state as of its last change.
  package func state<Result: Sendable>(_ look: (borrowing State) -> Result) -> Result {
    engine.shared.withLock { look($0.state) }
  }

  /// How many messages the queue's counts may have too many: see `State.overdue`.
  package func overdue(_ queue: QueueID) -> Int { engine.look { $0.overdue(queue) } }

  /// Tells the store that an injected clock was moved: its threads sleep in real time.
  package func timeHasMoved() {
    engine.schedulerBell.ring()
    engine.keeperBell.ring()
  }

  // MARK: Queues

  /// Answers once everything that the store shows now is durable: after a `lookup`, say, whose
  /// result is to be told to others.
  public func settle(_ completion: @escaping Completion<Void>) { engine.settle(completion) }

  /// Describes a queue, once everything that is told is durable.
  public func describe(_ queue: QueueID, _ completion: @escaping Completion<QueueDescription>) {
    engine.describe(queue, completion)
  }

  /// Creates a queue, or finds the one of that name if its settings equal those supplied.
  ///
  /// Fails with `.queueExists` when one that is supplied differs; `setting` names the first.
  ///
  /// - Parameter defaults: what a new queue has beside `settings`.
  public func createQueue(
    _ name: String, _ settings: QueueSettingsChange, beside defaults: QueueSettings = .init(),
    _ completion: @escaping Completion<QueueDescription>
  ) { engine.createQueue(name, settings, defaults, completion) }

  /// What seals contents; nil for a store without keys.
  package var cipher: (any ContentCipher)? { engine.options.cipher }

  /// Changes those settings that are not nil; the others stay.
  public func changeQueue(
    _ queue: QueueID, _ settings: QueueSettingsChange,
    _ completion: @escaping Completion<QueueDescription>
  ) {
    let decided: Result<QueueSettingsChange?, Never> = .success(settings)
    engine.changeQueue(queue, { _ in decided }) { completion($0.map { $0.get() }) }
  }

  /// Changes settings as `decide` says, who sees what they are; nobody changes them in between.
  ///
  /// - Parameters:
  ///   - decide: answers nil for no change, or a failure, which becomes the result. It runs with
  ///     the store's lock held, perhaps more than once: it must be quick and not call the store.
  ///   - completion: fails as that of the other `changeQueue`.
  public func changeQueue<Refused: Error>(
    _ queue: QueueID,
    deciding decide: @escaping @Sendable (QueueSettings) -> Result<QueueSettingsChange?, Refused>,
    _ completion: @escaping Completion<Result<QueueDescription, Refused>>
  ) { engine.changeQueue(queue, decide, completion) }

  /// Deletes a queue with its messages. Receives that wait on it end with an empty result.
  public func deleteQueue(_ queue: QueueID, _ completion: @escaping Completion<Void>) {
    engine.deleteQueue(queue, completion)
  }

  /// Deletes every message that was sent before, in whatever state it is.
  public func purgeQueue(_ queue: QueueID, _ completion: @escaping Completion<Void>) {
    engine.purgeQueue(queue, completion)
  }

  // MARK: Messages

  /// Sends messages. Those that the queue's size limit lets pass are one atomic group: after a
  /// crash all of them are there or none. Each has its own result, in order.
  public func send(
    _ entries: [SendEntry], to queue: QueueID,
    _ completion: @escaping Completion<[Result<SendReceipt, PenstockError>]>
  ) { engine.send(entries, to: queue, completion) }

  /// Receives messages, oldest first, and hides them for the visibility timeout. Without any,
  /// waits.
  ///
  /// - Returns: a ticket to cancel the wait with.
  @discardableResult
  public func receive(
    _ request: ReceiveRequest, from queue: QueueID,
    _ completion: @escaping Completion<[ReceivedMessage]>
  ) -> ReceiveTicket { engine.receive(request, from: queue, completion) }

  /// Ends a waiting receive with an empty result, unless it has taken messages already.
  public func cancel(_ ticket: ReceiveTicket) { engine.cancel(ticket) }

  /// Deletes messages. One that is gone already is a success. In a FIFO queue the lease must still
  /// be held, or the delete fails with `.leaseLost`.
  /// With `isFenced` that holds in a standard queue, too, and for messages that are gone.
  public func delete(
    _ handles: [LeaseHandle], from queue: QueueID, isFenced: Bool = false,
    _ completion: @escaping Completion<[Result<Void, PenstockError>]>
  ) { engine.delete(handles, from: queue, isFenced: isFenced, completion) }

  /// Moves leased messages to the dead-letter queue of theirs, for what its handler knows to fail.
  /// Fails with `.leaseLost`, or with `.deadLetterQueueNotFound`. The handles are all of one queue.
  public func reject(
    _ handles: [LeaseHandle], _ completion: @escaping Completion<[Result<Void, PenstockError>]>
  ) { engine.reject(handles, completion) }

  /// Moves the ends of leases. Also hides a message again whose lease has ended.
  ///
  /// A lease may not end later than `totalLimit` after its message was received; nil is no limit.
  /// With `isFenced` a lease that is not held any more fails with `.leaseLost`.
  public func changeVisibility(
    _ changes: [VisibilityChange], of queue: QueueID, totalLimit: Duration? = nil,
    isFenced: Bool = false, _ completion: @escaping Completion<[Result<Void, PenstockError>]>
  ) {
    engine.changeVisibility(
      changes, of: queue, totalLimit: totalLimit, isFenced: isFenced, completion)
  }

  // MARK: Closing

  /// Refuses new operations, ends waiting receives empty, finishes and answers what is under way,
  /// seals the log and releases the directory.
  ///
  /// Fails with `.storeFailed` when the store had failed; the directory is released all the same.
  public func close(_ completion: @escaping Completion<Void>) { engine.close(completion) }

  /// Whether operations are refused because of `close` or a failure.
  public var isClosed: Bool { engine.shared.withLock { $0.refusal != nil } }

  /// As `close` with a completion: waits for the end.
  public func close() async throws(PenstockError) { try await awaited { self.close($0) } }
}

/// Turns the callback style into `async`.
func awaited<T: Sendable>(
  _ start: (@escaping Completion<T>) -> Void
) async throws(PenstockError) -> T {
  try await withCheckedContinuation { continuation in
    start { continuation.resume(returning: $0) }
  }.get()
}
