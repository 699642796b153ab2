// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockServer
import Testing

@Suite struct HostileClients {
  private func isAlive(_ fixture: ServerFixture) throws -> Bool {
    try fixture.client().call("ListQueues", "{}").status == 200
  }

  @Test func announcedGiantIsRefusedAtOnce() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.client()
      try client.write(
        "POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n"
          + "Content-Length: 4194305\r\n\r\n{")
      let answer = try client.readResponse()
      #expect(answer.status == 413)
      #expect(answer.headers["connection"] == "close")
      #expect(answer.error == "RequestEntityTooLargeException")
      #expect(try client.isClosed())
      #expect(try isAlive(fixture))
    }
  }

  @Test func giantInChunksIsRefusedWhenItIsTooLarge() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.client()
      try client.write(
        "POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n"
          + "Transfer-Encoding: chunked\r\n\r\n")
      let chunk = "10000\r\n" + String(repeating: "x", count: 65_536) + "\r\n"
      for _ in 0..<65 { try client.write(chunk) }
      #expect(try client.readResponse().status == 413)
      #expect(try isAlive(fixture))
    }
  }

  @Test func bodiesOfAllClientsTogetherAreLimited() async throws {
    try await ServerFixture.run({ $0.maximumBufferedBytes = 1 << 20 }) { fixture in
      let head =
        "POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n"
        + "Content-Length: 2000000\r\n\r\n"
      let client = try fixture.client()
      try client.write(head + String(repeating: " ", count: 1_500_000))
      let answer = try client.readResponse()
      #expect(answer.status == 503)
      #expect(answer.headers["x-amzn-query-error"] == "ServiceUnavailable;Receiver")
      client.close()
      #expect(try isAlive(fixture))
    }
  }

  @Test(arguments: [
    "\r\n\r\n\u{0}\u{1}\u{2}", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\u{16}\u{3}\u{1}hello\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nbad header\r\n\r\n",
    // One reader would take the length, another the chunks.
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
      + "0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
      + "0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 1\r\n\r\nx",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "GET / HTTP/1.1\r\n X: a\r\nHost: h\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nX: a\u{0}b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nX: a\rContent-Length: 5\r\n\r\n",
    "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", "GET h/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  ])
  func brokenHTTPIsRefused(_ text: String) async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.client()
      // What is behind the refused request must not become one.
      try client.write(text + "GET /penstock/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(try client.readResponse().status >= 400)
      #expect(try client.isClosed())
      #expect(try isAlive(fixture))
    }
  }

  @Test func endlessHeadersAreRefused() async throws {
    try await ServerFixture.run { fixture in
      for line in [
        "X: " + String(repeating: "x", count: 1 << 17) + "\r\n",
        String(repeating: "X: " + String(repeating: "x", count: 1000) + "\r\n", count: 100),
        String(repeating: "X: y\r\n", count: 1000),
      ] {
        let client = try fixture.client()
        // The server may close while we write: then the answer or its absence is all there is.
        let status = try? { () throws -> Int in
          try client.write("GET / HTTP/1.1\r\nHost: h\r\n" + line + "\r\n")
          return try client.readResponse().status
        }()
        #expect(status == nil || status == 400 || status == 431)
      }
      #expect(try isAlive(fixture))
    }
  }

  @Test func slowRequestsAreCutOff() async throws {
    try await ServerFixture.run({ $0.requestTimeout = .milliseconds(400) }) { fixture in
      let silent = try fixture.client()
      let slowHead = try fixture.client()
      try slowHead.write("POST / HTT")
      let slowBody = try fixture.client()
      try slowBody.write(
        "POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.ListQueues\r\n"
          + "Content-Length: 10\r\n\r\n{")
      #expect(try slowBody.readResponse().error == "RequestTimeoutException")
      #expect(try slowBody.isClosed())
      #expect(try slowHead.isClosed())
      #expect(try silent.isClosed())
      #expect(try isAlive(fixture))
    }
  }

  @Test func idleConnectionsAreClosedAndLongPollsAreNot() async throws {
    try await ServerFixture.run({
      $0.idleTimeout = .milliseconds(300)
      $0.requestTimeout = .milliseconds(300)
    }) { fixture in
      let poller = try fixture.clientWithQueue()
      let idle = try fixture.client()
      _ = try idle.call("ListQueues", "{}")
      try poller.write(
        HTTPClient.request("ReceiveMessage", #"{"QueueUrl":"q","WaitTimeSeconds":2}"#))
      #expect(try idle.isClosed())
      #expect(try poller.readResponse().text == "{}")
    }
  }

  @Test func truncatedRequestsLeaveNothingBehind() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let request = HTTPClient.request("SendMessage", #"{"QueueUrl":"q","MessageBody":"x"}"#)
      for length in stride(from: 0, to: request.utf8.count, by: 7) {
        let broken = try fixture.client()
        try broken.write(Array(request.utf8.prefix(length)))
        broken.close()
      }
      #expect(try client.call("ReceiveMessage", #"{"QueueUrl":"q"}"#).text == "{}")
    }
  }

  @Test func upgradeIsAnsweredAndTheConnectionClosed() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.client()
      try client.write(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
      #expect(try client.readResponse().status == 404)
      #expect(try client.isClosed())
      let tunnel = try fixture.client()
      try tunnel.write("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(try tunnel.readResponse().status == 405)
      #expect(try isAlive(fixture))
    }
  }

  @Test func headRequestGetsNoBody() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.client()
      try client.write("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
      #expect(try client.readResponse().status == 405)
      #expect(try client.call("ListQueues", "{}").status == 200)
    }
  }

  @Test func clientThatNeverReadsIsHeldBack() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let body = String(repeating: "x", count: 1_000_000)
      _ = try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"\#(body)"}"#)
      let deaf = try fixture.client()
      let request = HTTPClient.request(
        "ReceiveMessage", #"{"QueueUrl":"q","VisibilityTimeout":0}"#)
      try deaf.write(String(repeating: request, count: 100))
      // Enough for a server that answers whoever does not read to answer all of them.
      for _ in 0..<200 { _ = try client.call("ListQueues", "{}") }
      let answer = try client.call(
        "ReceiveMessage",
        #"{"QueueUrl":"q","MessageSystemAttributeNames":["ApproximateReceiveCount"]}"#)
      let message = try #require((answer.object["Messages"] as? [[String: Any]])?.first)
      let attributes = try #require(message["Attributes"] as? [String: String])
      let count = try #require(Int(attributes["ApproximateReceiveCount"] ?? ""))
      #expect(count < 40)
    }
  }

  /// What stays in the server because its client does not read ends the connection when the time
  /// for a request is over, long before an idle one would end: one large answer, or many small.
  @Test(arguments: [(1_000_000, 1), (50_000, 500)])
  func clientThatDoesNotReadItsAnswerIsCutOff(_ size: Int, _ requests: Int) async throws {
    try await ServerFixture.run({
      $0.requestTimeout = .milliseconds(500)
      $0.maximumConnections = 1
    }) { fixture in
      let client = try fixture.clientWithQueue()
      let body = String(repeating: "x", count: size)
      for _ in 0..<10 {
        _ = try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"\#(body)"}"#)
      }
      client.close()
      // Connections are turned away until the server has seen the other end.
      let deaf = try await ServerFixture.onThread {
        while true {
          let deaf = try HTTPClient(port: fixture.port, receiveBuffer: 4096)
          if (try? deaf.call("ListQueues", "{}").status) == 200 { return Held(client: deaf) }
        }
      }
      let receive = HTTPClient.request(
        "ReceiveMessage",
        #"{"QueueUrl":"q","VisibilityTimeout":0,"MaxNumberOfMessages":\#(requests == 1 ? 10 : 1)}"#)
      try deaf.client.write(String(repeating: receive, count: requests))
      try await ServerFixture.until { (try? isAlive(fixture)) == true }
      #expect(throws: (any Error).self) {
        for _ in 0..<requests { _ = try deaf.client.readResponse() }
      }
    }
  }

  /// A client that one thread after the other uses.
  private struct Held: @unchecked Sendable {
    // Unchecked: never used by two threads at once.
    var client: HTTPClient
  }

  @Test func tenThousandConnectionsComeAndGo() async throws {
    try await ServerFixture.run { fixture in
      for _ in 0..<100 {
        let clients = try (0..<100).map { _ in try fixture.client() }
        for (place, client) in clients.enumerated() where place % 3 != 0 {
          try client.write(place % 3 == 1 ? "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{" : "P")
        }
        for client in clients { client.close() }
      }
      #expect(try isAlive(fixture))
    }
  }

  /// Answers that clients do not read are bounded in all; bytes that were read count no more.
  @Test func largeAnswersAreCountedUntilTheyAreRead() async throws {
    try await ServerFixture.run({ $0.maximumBufferedBytes = 600_000 }) { fixture in
      let client = try fixture.clientWithQueue()
      let body = String(repeating: "x", count: 400_000)
      let send = #"{"QueueUrl":"q","MessageBody":"\#(body)"}"#
      let receive = #"{"QueueUrl":"q","VisibilityTimeout":0,"MaxNumberOfMessages":10}"#
      #expect(try client.call("SendMessage", send).status == 200)
      for _ in 0..<5 { #expect(try client.call("ReceiveMessage", receive).status == 200) }
      #expect(try client.call("SendMessage", send).status == 200)
      let refused = try client.call("ReceiveMessage", receive)
      #expect(refused.status == 503)
      #expect(try isAlive(fixture))
    }
  }

  @Test func connectionsBeyondTheLimitAreClosed() async throws {
    try await ServerFixture.run({ $0.maximumConnections = 3 }) { fixture in
      let clients = try (0..<3).map { _ in try fixture.client() }
      for client in clients { #expect(try client.call("ListQueues", "{}").status == 200) }
      let extra = try fixture.client()
      #expect((try? extra.isClosed()) ?? true)
      for client in clients { client.close() }
      try await ServerFixture.until {
        // Connections are turned away until the server has seen the others end.
        (try? fixture.client().call("ListQueues", "{}").status) == 200
      }
    }
  }
}
