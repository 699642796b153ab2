// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockServer
import Testing

@Suite struct Serving {
  @Test func messageGoesInAndOutAndAway() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let url = try client.call("GetQueueUrl", #"{"QueueName":"q"}"#)
      #expect(url["QueueUrl"] == "http://localhost:9324/000000000000/q")
      let sent = try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"hello"}"#)
      #expect(sent.status == 200)
      #expect(sent["MD5OfMessageBody"] == "5d41402abc4b2a76b9719d911017c592")
      #expect(sent.headers["content-type"] == "application/x-amz-json-1.0")
      #expect(sent.headers["x-amzn-requestid"]?.count == 36)
      #expect(sent.headers["date"]?.hasSuffix(" GMT") == true)
      #expect(sent.headers["content-length"] == String(sent.body.count))
      let received = try client.call("ReceiveMessage", #"{"QueueUrl":"q"}"#)
      let message = try #require((received.object["Messages"] as? [[String: Any]])?.first)
      let handle = try #require(message["ReceiptHandle"] as? String)
      let deleted = try client.call(
        "DeleteMessage", #"{"QueueUrl":"q","ReceiptHandle":"\#(handle)"}"#)
      #expect(deleted.status == 200)
      #expect(deleted.headers["content-length"] == "0")
    }
  }

  @Test func pipelinedRequestsAreAnsweredInOrder() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let bodies = (0..<50).map { #"{"QueueUrl":"q","MessageBody":"m\#($0)"}"# }
      try client.write(bodies.map { HTTPClient.request("SendMessage", $0) }.joined())
      for _ in bodies { #expect(try client.readResponse().status == 200) }
      try client.write(
        (0..<5).map { _ in
          HTTPClient.request("ReceiveMessage", #"{"QueueUrl":"q","MaxNumberOfMessages":10}"#)
        }.joined())
      var texts: [String] = []
      for _ in 0..<5 {
        let messages = try client.readResponse().object["Messages"] as? [[String: Any]] ?? []
        texts += messages.compactMap { $0["Body"] as? String }
      }
      #expect(texts.sorted() == (0..<50).map { "m\($0)" }.sorted())
    }
  }

  @Test func chunkedBodyAndBodyInPiecesAreTaken() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let body = #"{"QueueUrl":"q","MessageBody":"hello"}"#
      var request = "POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.SendMessage\r\n"
      request += "Transfer-Encoding: chunked\r\n\r\n"
      for byte in body.utf8 { request += "1\r\n\(UnicodeScalar(byte))\r\n" }
      try client.write(request + "0\r\n\r\n")
      #expect(try client.readResponse()["MD5OfMessageBody"] == "5d41402abc4b2a76b9719d911017c592")
      for byte in HTTPClient.request("SendMessage", body).utf8 { try client.write([byte]) }
      #expect(try client.readResponse()["MD5OfMessageBody"] == "5d41402abc4b2a76b9719d911017c592")
    }
  }

  @Test func continueIsSentBeforeTheBody() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.client()
      let body = #"{"QueueName":"q"}"#
      try client.write(
        "POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.CreateQueue\r\n"
          + "Expect: 100-continue\r\nContent-Length: \(body.utf8.count)\r\n\r\n")
      #expect(try client.readResponse().status == 100)
      try client.write(body)
      #expect(try client.readResponse().status == 200)
    }
  }

  @Test func largestMessageFits() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let text = String(repeating: "\\u00e4", count: 524_288)
      let sent = try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"\#(text)"}"#)
      #expect(sent.status == 200)
      let received = try client.call("ReceiveMessage", #"{"QueueUrl":"q"}"#)
      let message = try #require((received.object["Messages"] as? [[String: Any]])?.first)
      #expect((message["Body"] as? String)?.utf8.count == 1_048_576)
      #expect(message["MD5OfBody"] as? String == sent["MD5OfMessageBody"])
    }
  }

  @Test func oldAndClosingConnectionsAreClosed() async throws {
    try await ServerFixture.run { fixture in
      let closing = try fixture.client()
      let answer = try closing.call("ListQueues", "{}", headers: "Connection: close\r\n")
      #expect(answer.status == 200)
      #expect(answer.headers["connection"] == "close")
      #expect(try closing.isClosed())
      let old = try fixture.client()
      try old.write("GET / HTTP/1.0\r\n\r\n")
      #expect(try old.readResponse().status == 404)
      #expect(try old.isClosed())
    }
  }
}

@Suite struct LongPolls {
  @Test func sendWakesThePoll() async throws {
    try await ServerFixture.run { fixture in
      let sender = try fixture.clientWithQueue()
      let poll = Task {
        try await ServerFixture.onThread {
          try fixture.client().call(
            "ReceiveMessage", #"{"QueueUrl":"q","WaitTimeSeconds":20}"#
          ).text
        }
      }
      try await fixture.untilWaiting(1)
      _ = try sender.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"woken"}"#)
      #expect(try await poll.value.contains("\"Body\":\"woken\""))
    }
  }

  @Test func pollOfAClientThatLeftTakesNoMessage() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let poller = try fixture.client()
      try poller.write(
        HTTPClient.request("ReceiveMessage", #"{"QueueUrl":"q","WaitTimeSeconds":20}"#))
      try await fixture.untilWaiting(1)
      poller.close()
      try await fixture.untilWaiting(0)
      _ = try client.call("SendMessage", #"{"QueueUrl":"q","MessageBody":"kept"}"#)
      let answer = try client.call(
        "ReceiveMessage",
        #"{"QueueUrl":"q","MessageSystemAttributeNames":["ApproximateReceiveCount"]}"#)
      #expect(answer.text.contains("\"ApproximateReceiveCount\":\"1\""))
    }
  }

  @Test func stopAnswersPollsWithNothingAndLosesNothing() async throws {
    try await ServerFixture.run { fixture in
      let client = try fixture.clientWithQueue()
      let idle = try fixture.client()
      _ = try idle.call("ListQueues", "{}")
      try client.write(
        HTTPClient.request("ReceiveMessage", #"{"QueueUrl":"q","WaitTimeSeconds":20}"#))
      try await fixture.untilWaiting(1)
      let start = ContinuousClock.now
      async let stopped: Void = fixture.server.stop()
      let answer = try await ServerFixture.onThread { [client = Unchecked(client)] in
        let response = try client.value.readResponse()
        client.value.close()
        return (response.status, response.text, response.headers["connection"])
      }
      #expect(answer == (200, "{}", "close"))
      await stopped
      // Less than the poll would have taken.
      #expect(ContinuousClock.now - start < .seconds(18))
      #expect(try idle.isClosed())
      #expect(throws: HTTPClient.Failure.self) { try fixture.client() }
    }
  }
}

/// Hands a client from one thread to another.
// One thread at a time uses it: the test waits for the thread it starts.
private struct Unchecked<Value>: @unchecked Sendable {
  var value: Value
  init(_ value: Value) { self.value = value }
}

@Suite struct DatesOfHTTP {
  @Test(arguments: [
    (0, "Thu, 01 Jan 1970 00:00:00 GMT"), (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
    (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
    (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"), (-5, "Thu, 01 Jan 1970 00:00:00 GMT"),
    (Int64.max, "Fri, 31 Dec 9999 23:59:59 GMT"),
  ])
  func areWrittenInTheFixedForm(_ seconds: Int64, _ text: String) {
    #expect(HTTPDate.text(secondsSince1970: seconds) == text)
  }
}
