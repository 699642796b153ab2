// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockServer
import PenstockTesting
import Synchronization
import Testing

@Suite struct Addresses {
  @Test func publicURLIsWhatQueueURLsBeginWith() async throws {
    try await ServerFixture.run({
      $0.publicURL = "https://queues.example.com/sqs"
      $0.accountID = "123456789012"
      $0.region = "eu-west-1"
    }) { fixture in
      let client = try fixture.client()
      let made = try client.call("CreateQueue", #"{"QueueName":"q"}"#)
      let url = "https://queues.example.com/sqs/123456789012/q"
      #expect(made["QueueUrl"] == url)
      let sent = try client.call("SendMessage", #"{"QueueUrl":"\#(url)","MessageBody":"x"}"#)
      #expect(sent.status == 200)
      let attributes = try client.call(
        "GetQueueAttributes", #"{"QueueUrl":"\#(url)","AttributeNames":["QueueArn"]}"#)
      #expect(attributes.text.contains("arn:aws:sqs:eu-west-1:123456789012:q"))
    }
  }

  @Test func forwardedHeadersCountOnlyIfConfigured() async throws {
    let headers = "X-Forwarded-Host: outside:1\r\nX-Forwarded-Proto: https\r\n"
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let answer = try client.call("GetQueueUrl", #"{"QueueName":"q"}"#, headers: headers)
      #expect(answer["QueueUrl"] == "http://localhost:9324/000000000000/q")
    }
    try await ServerFixture.run({ $0.trustsForwarded = true }) { fixture in
      let client = try fixture.clientWithQueue()
      let answer = try client.call("GetQueueUrl", #"{"QueueName":"q"}"#, headers: headers)
      #expect(answer["QueueUrl"] == "https://outside:1/000000000000/q")
      let forwarded = "X-Forwarded-For: 127.0.0.1, 192.0.2.1\r\n"
      #expect(try client.get("/penstock/metrics", headers: forwarded).status == 403)
    }
  }

  @Test(arguments: ["0.0.0.0", "::", "192.0.2.1", "example.com", "127.0.0.1.example.com"])
  func othersThanLoopbackNeedCredentials(_ host: String) async throws {
    let error = await #expect(throws: PenstockServer.StartError.self) {
      _ = try await PenstockServer.listen(on: host, port: 0)
    }
    #expect(error?.description.contains("without credentials") == true)
  }

  @Test func wrongConfigurationsAreStartErrors() async throws {
    let wrong: [(inout PenstockServer.Configuration) -> Void] = [
      { $0.accountID = "1" }, { $0.region = "" }, { $0.publicURL = "h" },
      { $0.publicURL = "https://h/" }, { $0.publicURL = "https://h:0" },
      { $0.publicURL = "https://u@h" },
      { $0.tls = .init(certificatePath: "/nowhere/c", keyPath: "/nowhere/k") },
      { $0.watchedFiles = [WatchedFiles(["/nowhere"]) { _ in }] },
      { $0.watchedFiles = [WatchedFiles(["/dev/zero"]) { _ in }] },
    ]
    for change in wrong {
      var configuration = PenstockServer.Configuration()
      change(&configuration)
      let error = await #expect(throws: PenstockServer.StartError.self) {
        _ = try await PenstockServer.listen(port: 0, configuration: configuration)
      }
      #expect(error?.description.contains("\n") == false)
    }
  }
}

@Suite struct BeforeTheStoreIsOpen {
  /// A directory for a store, which is removed afterwards.
  private func withDirectory(_ body: (String) async throws -> Void) async throws {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-opening-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: directory) }
    try await body(directory.path)
  }

  @Test func requestsAreUnavailableAndHealthSaysWhy() async throws {
    try await withDirectory { path in
      let server = try await PenstockServer.listen(port: 0)
      let client = try HTTPClient(port: server.port)
      let refused = try client.call("ListQueues", "{}")
      #expect(refused.status == 503)
      #expect(refused.error == "ServiceUnavailableException" || refused.error != nil)
      #expect(refused.headers["x-amzn-query-error"] == "ServiceUnavailable;Receiver")
      try client.write(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n"
          + "Content-Length: 17\r\n\r\nAction=ListQueues")
      let query = try client.readResponse()
      #expect(query.status == 503)
      #expect(query.text.contains("<Code>ServiceUnavailable</Code>"))
      #expect(try client.get("/penstock/health/live").status == 200)
      server.note(.recovering(segments: 3, of: 7))
      let ready = try client.get("/penstock/health/ready")
      #expect(ready.status == 503)
      #expect(ready["state"] == "opening")
      #expect(ready.object["segmentsRead"] as? Int == 3)
      #expect(ready.object["segmentsTotal"] as? Int == 7)
      let stranger = try client.get(
        "/penstock/health/ready", headers: "X-Forwarded-For: 192.0.2.1\r\n")
      #expect(stranger.text == #"{"state":"opening"}"#)
      let store = try await Store.open(at: path)
      await server.serve(store)
      // On the connection that was there before.
      #expect(try client.call("CreateQueue", #"{"QueueName":"q"}"#).status == 200)
      #expect(try client.get("/penstock/health/ready")["state"] == "ready")
      try await store.close()
      let closed = try client.get("/penstock/health/ready")
      #expect(closed.status == 503)
      #expect(closed["state"] == "closed")
      #expect(try client.get("/penstock/health/live").status == 200)
      await server.stop()
    }
  }

  @Test func aFailedStoreIsNotReady() async throws {
    let disk = SimulatedFileSystem()
    var environment = StoreEnvironment()
    environment.fileSystem = disk
    let store = try await Store.open(at: "/store", environment: environment)
    let server = try await PenstockServer.start(serving: store, port: 0)
    let client = try HTTPClient(port: server.port)
    #expect(try client.call("CreateQueue", #"{"QueueName":"q"}"#).status == 200)
    #expect(try client.get("/penstock/health/ready").status == 200)
    disk.inject(Fault([.syncData], isPermanent: true, errno: EIO))
    #expect(try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"x"}"#).status >= 500)
    let ready = try client.get("/penstock/health/ready")
    #expect(ready.status == 503)
    #expect(ready["state"] == "failed")
    #expect(ready["reason"]?.isEmpty == false)
    #expect(try client.get("/penstock/metrics").status == 200)
    await server.stop()
    await #expect(throws: PenstockError.self) { try await store.close() }
  }

  @Test func aServerThatNeverGetsAStoreStops() async throws {
    let server = try await PenstockServer.listen(port: 0)
    let client = try HTTPClient(port: server.port)
    #expect(try client.get("/penstock/health/live").status == 200)
    await server.stop()
    #expect(try client.isClosed())
  }

  @Test func recoveryTellsHowFarItIs() async throws {
    try await withDirectory { path in
      var options = StoreOptions()
      options.segmentSize = 65_536
      let first = try await Store.open(at: path, options: options)
      let queue = try await first.queue("q")
      for _ in 0..<40 { try await queue.send(String(repeating: "x", count: 8000)) }
      try await first.close()
      let seen = Mutex<[[Int]]>([])
      options.onEvent = { event in
        if case .recovering(let read, let total) = event {
          seen.withLock { $0.append([read, total]) }
        }
      }
      let store = try await Store.open(at: path, options: options)
      try await store.close()
      let steps = seen.withLock { $0 }
      let total = try #require(steps.first?.last)
      #expect(total > 0)
      #expect(steps == (0...total).map { [$0, total] })
    }
  }
}

@Suite struct Looks {
  @Test func peekShowsMessagesAndReceivesNone() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let path = "/penstock/queues/000000000000/q/peek"
      #expect(try client.get(path).text == "[]")
      let attributes =
        #""MessageAttributes":{"a":{"DataType":"Binary","BinaryValue":"AQI="}}"#
      _ = try client.call(
        "SendMessage", #"{"QueueUrl":"q","MessageBody":"one",\#(attributes)}"#)
      _ = try client.call("ReceiveMessage", #"{"QueueUrl":"q"}"#)
      _ = try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"two"}"#)
      _ = try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"3","DelaySeconds":900}"#)
      func look(_ query: String) throws -> [[String: Any]] {
        let answer = try client.get(path + query)
        #expect(answer.status == 200)
        let list = try JSONSerialization.jsonObject(with: Data(answer.body))
        return try #require(list as? [[String: Any]])
      }
      for _ in 0..<3 { #expect(try look("").map { $0["body"] as? String } == ["two"]) }
      let all = try look("?limit=100&state=any")
      #expect(Set(all.compactMap { $0["body"] as? String }) == ["one", "two", "3"])
      let one = try #require(all.first { $0["body"] as? String == "one" })
      #expect(one["state"] as? String == "leased")
      #expect(one["receiveCount"] as? Int == 1)
      #expect(one["sent"] is Int && one["until"] is Int)
      let attribute = (one["attributes"] as? [String: [String: String]])?["a"]
      #expect(attribute == ["type": "Binary", "binary": "AQI="])
      #expect(try look("?limit=1&state=any").count == 1)
      #expect(
        try client.call("ReceiveMessage", #"{"QueueUrl":"q"}"#).text.contains(#""Body":"two""#))
    }
  }

  @Test func wrongPathsAndStrangersAreRefused() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let base = "/penstock/queues/000000000000/q/peek"
      for query in ["?limit=0", "?limit=101", "?limit=x", "?limit", "?state=x", "?x=1"] {
        #expect(try client.get(base + query).status == 400)
      }
      for path in [
        "/penstock/", "/penstock/x", "/penstock/queues/000000000000/x/peek",
        "/penstock/queues/1/q/peek", base + "/", "/penstock/queues/000000000000/q",
      ] {
        #expect(try client.get(path).status == 404)
      }
      let proxied = "X-Forwarded-For: 127.0.0.1\r\n"
      for path in [base, "/penstock/metrics", "/penstock/x"] {
        #expect(try client.get(path, headers: proxied).status == 403)
      }
      #expect(try client.get("/penstock/health/ready", headers: proxied).status == 200)
    }
  }
}

@Suite struct Watching {
  @Test func changedFilesAreTakenAndBrokenOnesAreNot() async throws {
    let file = FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-watched-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: file) }
    struct Broken: Error {}
    let taken = Mutex<[String]>([])
    let refused = Mutex(0)
    try Data("1".utf8).write(to: file)
    let watched = WatchedFiles([file.path], maximumBytes: 10) { contents in
      let text = String(decoding: contents[0], as: UTF8.self)
      if text == "broken" {
        refused.withLock { $0 += 1 }
        throw Broken()
      }
      taken.withLock { $0.append(text) }
    }
    try await ServerFixture.run({
      $0.watchedFiles = [watched]
      $0.watchInterval = .milliseconds(10)
    }) { _ in
      #expect(taken.withLock { $0 } == ["1"])
      // The same size, in place.
      let handle = try FileHandle(forUpdating: file)
      try handle.write(contentsOf: Data("2".utf8))
      try handle.close()
      try await ServerFixture.until { taken.withLock { $0.last } == "2" }
      try Data("broken".utf8).write(to: file, options: .atomic)
      try await ServerFixture.until { refused.withLock { $0 } == 1 }
      try FileManager.default.removeItem(at: file)
      try Data("larger than ten bytes".utf8).write(to: file, options: .atomic)
      try Data("3".utf8).write(to: file, options: .atomic)
      try await ServerFixture.until { taken.withLock { $0.last } == "3" }
    }
    #expect(taken.withLock { $0 } == ["1", "2", "3"])
    #expect(refused.withLock { $0 } == 1)
  }
}
