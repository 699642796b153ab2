// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSystem
import PenstockTesting
import Synchronization
import Testing

/// Runs `body` with a fresh directory that is removed afterwards.
func withTemporaryDirectory<Result>(
  _ body: (String) async throws -> Result
) async throws -> Result {
  let directory = FileManager.default.temporaryDirectory
    .appendingPathComponent("penstock-\(UUID().uuidString)").path
  defer { try? FileManager.default.removeItem(atPath: directory) }
  return try await body(directory)
}

/// The two disks that a store must behave alike on.
enum Disk: CaseIterable, Sendable { case real, simulated }

/// A machine for one store: a disk, a clock that moves when told, and what the store logs.
struct Bench: Sendable {
  var fileSystem: any FileSystem
  var clock: any SystemClock
  /// The same clock, to move it.
  let simulatedClock: SimulatedClock
  let path: String
  var options = StoreOptions()
  let lines = Lines()
  let random: StableRandom

  init(
    _ fileSystem: any FileSystem = SimulatedFileSystem(), path: String = "/store",
    segmentSize: Int = 256 << 10, seed: UInt64 = 1, wall: Int64 = 1_700_000_000_000
  ) {
    self.fileSystem = fileSystem
    self.path = path
    simulatedClock = SimulatedClock(wallMilliseconds: wall)
    clock = simulatedClock
    random = StableRandom(seed: seed)
    options.segmentSize = segmentSize
    options.log = { [lines] in lines.append($0) }
  }

  /// Runs `body` with a bench on a disk of a kind.
  static func on(_ disk: Disk, _ body: (Bench) async throws -> Void) async throws {
    switch disk {
    case .simulated: try await body(Bench())
    case .real:
      try await withTemporaryDirectory { try await body(Bench(PosixFileSystem(), path: $0)) }
    }
  }

  func open() async throws(PenstockError) -> Store {
    try await Store.open(
      at: path, options: options,
      environment: StoreEnvironment(fileSystem: fileSystem, clock: clock, random: random))
  }

  /// Opens the store, with a queue in it that hides messages for 30 seconds.
  func openWithQueue() async throws -> (Store, Queue) {
    let store = try await open()
    return (store, try await store.queue("q"))
  }

  /// Lets time pass, and the store notice it.
  func pass(_ duration: Duration, _ store: Store) {
    simulatedClock.advance(by: duration)
    store.timeHasMoved()
  }
}

/// What a store logged.
final class Lines: Sendable {
  private let all = Mutex<[String]>([])
  func append(_ line: String) { all.withLock { $0.append(line) } }
  func contains(_ text: String) -> Bool { all.withLock { $0.contains { $0.contains(text) } } }
}

/// The answer of an operation that was started with a completion.
final class Answer<Value: Sendable>: Sendable {
  private struct State {
    var result: Result<Value, PenstockError>?
    var continuation: CheckedContinuation<Void, Never>?
    var count = 0
  }
  private let state = Mutex(State())

  /// Starts the operation with the completion that is handed to it.
  init(_ start: (@escaping Completion<Value>) -> Void) {
    start { result in
      let continuation = self.state.withLock { state in
        state.result = result
        state.count += 1
        return state.continuation.take()
      }
      continuation?.resume()
    }
  }

  /// How often the completion was called.
  var count: Int { state.withLock { $0.count } }
  var isThere: Bool { count > 0 }

  var value: Value {
    get async throws(PenstockError) {
      await withCheckedContinuation { continuation in
        let isThere = state.withLock { state in
          if state.result == nil { state.continuation = continuation }
          return state.result != nil
        }
        if isThere { continuation.resume() }
      }
      guard let result = state.withLock({ $0.result }) else {
        throw PenstockError(.invalidArgument, "two tests wait for one answer")
      }
      return try result.get()
    }
  }

  /// The error's code; nil when it succeeded.
  var code: PenstockError.Code? {
    get async {
      do throws(PenstockError) {
        _ = try await value
        return nil
      } catch { return error.code }
    }
  }
}

/// The code of the error that `body` throws; nil when it throws none.
func code(_ body: () async throws -> Void) async -> PenstockError.Code? {
  do {
    try await body()
  } catch let error as PenstockError {
    return error.code
  } catch {
    Issue.record("\(error) is no error of the store's")
  }
  return nil
}

/// Waits until something that another thread does is done; only for what tells nobody.
func eventually(
  _ location: SourceLocation = #_sourceLocation, _ condition: () async throws -> Bool
) async throws {
  let end = ContinuousClock.now + .seconds(30)
  while try await !condition() {
    guard ContinuousClock.now < end else {
      Issue.record("it did not happen in 30 seconds", sourceLocation: location)
      return
    }
    await Task.yield()
  }
}

extension Queue {
  /// Starts a receive and returns when it waits or has its answer.
  func startReceive(
    _ maximum: Int = 1, wait: Duration = .seconds(20), visibilityTimeout: Duration? = nil
  ) -> Answer<[ReceivedMessage]> {
    Answer {
      store.receive(
        ReceiveRequest(
          maximumMessages: maximum, wait: wait, visibilityTimeout: visibilityTimeout),
        from: id, $0)
    }
  }

  func startSend(_ text: String, delay: Duration? = nil) -> Answer<
    [Result<SendReceipt, PenstockError>]
  > {
    let entry = SendEntry(MessageContent(body: Array(text.utf8)), delay: delay)
    return Answer { store.send([entry], to: id, $0) }
  }

  var counts: QueueCounts { get async throws { try await describe().counts } }

  /// Visible, leased and delayed messages.
  var countsList: [Int] {
    get async throws {
      let counts = try await counts
      return [counts.visible, counts.leased, counts.delayed]
    }
  }
}

extension [ReceivedMessage] {
  var texts: [String] { map { String(decoding: $0.content.body, as: UTF8.self) } }
}
