// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockServer
import Testing

/// A server on a free port over a store in a directory of its own.
struct ServerFixture: Sendable {
  let store: Store
  let server: PenstockServer
  var port: Int { server.port }

  /// Runs `body`, then stops the server, closes the store and removes the directory.
  static func run(
    _ configure: (inout PenstockServer.Configuration) -> Void = { _ in },
    environment: StoreEnvironment = StoreEnvironment(),
    _ body: (ServerFixture) async throws -> Void
  ) async throws {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-server-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: directory) }
    let store = try await Store.open(at: directory.path, environment: environment)
    var configuration = PenstockServer.Configuration()
    configuration.drainTimeout = .seconds(5)
    configure(&configuration)
    let server = try await PenstockServer.start(
      serving: store, port: 0, configuration: configuration)
    let fixture = ServerFixture(store: store, server: server)
    do {
      try await body(fixture)
    } catch {
      await server.stop()
      try? await store.close()
      throw error
    }
    await server.stop()
    try await store.close()
  }

  func client() throws -> HTTPClient { try HTTPClient(port: port) }

  /// A client, and a queue named `q`.
  func clientWithQueue() throws -> HTTPClient {
    let client = try client()
    let answer = try client.call("CreateQueue", #"{"QueueName":"q"}"#)
    try #require(answer.status == 200, "\(answer.text)")
    return client
  }

  /// Runs a blocking call on a thread of its own.
  static func onThread<Value: Sendable>(
    _ body: @escaping @Sendable () throws -> Value
  ) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
    }
  }

  /// Waits for something that announces itself in no other way.
  static func until(_ condition: @escaping @Sendable () throws -> Bool) async throws {
    try await onThread {
      let end = ContinuousClock.now + .seconds(60)
      while try !condition() {
        guard ContinuousClock.now < end else { throw HTTPClient.Failure(what: "not within 60 s") }
        Thread.sleep(forTimeInterval: 0.005)
      }
    }
  }

  /// Waits until as many receives wait in the store.
  func untilWaiting(_ count: Int) async throws {
    try await Self.until { [store] in store.metrics().waitingReceives == count }
  }
}
