// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSQS
import Testing

@Suite struct MessageFlow {
  @Test func messageComesBackAsItWasSent() async throws {
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    try await ServiceFixture.runWithQueue { fixture in
      let sent = await fixture.call(
        "SendMessage",
        #"""
        {"QueueUrl":"$Q","MessageBody":"Grüße 🐝\r\n","MessageGroupId":"tenant-1",
         "MessageAttributes":{"n":{"DataType":"Number.int","StringValue":"42"},
           "city":{"DataType":"String","StringValue":"Zürich"},
           "blob":{"DataType":"Binary","BinaryValue":"AAH/"}},
         "MessageSystemAttributes":{"AWSTraceHeader":{"DataType":"String",
           "StringValue":"\#(trace)"}}}
        """#)
      #expect(sent.status == 200)
      #expect(sent["MD5OfMessageBody"] == "92771d33ac54030ec32b63ffcc32fab4")
      #expect(sent["MD5OfMessageAttributes"] == "989d8b49eef0e51cce3154ca7e3418f6")
      #expect(sent["MD5OfMessageSystemAttributes"] == "5ae4d5d7636402d80f4eb6d213245a88")
      #expect(sent["SequenceNumber"] == nil)
      let message = try #require(await fixture.receive().first)
      #expect(message["MessageId"] as? String == sent["MessageId"])
      #expect(message["Body"] as? String == "Grüße 🐝\r\n")
      #expect(message["MD5OfBody"] as? String == "92771d33ac54030ec32b63ffcc32fab4")
      #expect(message["MD5OfMessageAttributes"] as? String == "989d8b49eef0e51cce3154ca7e3418f6")
      let attributes = try #require(message["MessageAttributes"] as? [String: [String: String]])
      #expect(attributes["blob"] == ["DataType": "Binary", "BinaryValue": "AAH/"])
      #expect(attributes["n"] == ["DataType": "Number.int", "StringValue": "42"])
      let system = try #require(message["Attributes"] as? [String: String])
      #expect(
        Set(system.keys) == [
          "SenderId", "SentTimestamp", "ApproximateReceiveCount",
          "ApproximateFirstReceiveTimestamp", "MessageGroupId", "AWSTraceHeader",
        ])
      #expect(system["SenderId"] == "000000000000")
      #expect(system["MessageGroupId"] == "tenant-1")
      #expect(system["ApproximateReceiveCount"] == "1")
      #expect(system["SentTimestamp"]?.count == 13)
    }
  }

  @Test func whatIsNotThereIsAbsent() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let empty = await fixture.call("ReceiveMessage", #"{"QueueUrl":"$Q"}"#)
      #expect(empty.text == "{}")
      let sent = await fixture.call(
        "SendMessage", #"{"QueueUrl":"$Q","MessageBody":"hello","MessageAttributes":{}}"#)
      #expect(Set(sent.object.keys) == ["MessageId", "MD5OfMessageBody"])
      let answer = await fixture.call("ReceiveMessage", #"{"QueueUrl":"$Q"}"#)
      let message = try #require(answer.objects("Messages").first)
      #expect(Set(message.keys) == ["MessageId", "ReceiptHandle", "MD5OfBody", "Body"])
    }
  }

  @Test func traceHeaderOfTheRequestIsKeptUnlessOneIsGiven() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let headers = ["x-amzn-trace-id": "Root=1"]
      let sent = await fixture.call(
        "SendMessage", #"{"QueueUrl":"$Q","MessageBody":"a"}"#, headers: headers)
      #expect(sent["MD5OfMessageSystemAttributes"] == nil)
      let message = try #require(await fixture.receive().first)
      #expect((message["Attributes"] as? [String: String])?["AWSTraceHeader"] == "Root=1")
    }
  }

  @Test func digestCoversTheReturnedAttributesOnly() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let values = ["General": "Kenobi", "Hello": "There", "Help.Me": "Me"]
      let attributes = values.map { #""\#($0)":{"DataType":"String","StringValue":"\#($1)"}"# }
        .joined(separator: ",")
      _ = await fixture.call(
        "SendMessage",
        #"{"QueueUrl":"$Q","MessageBody":"x","MessageAttributes":{\#(attributes)}}"#)
      func digest(_ names: String) async -> String? {
        let answer = await fixture.call(
          "ReceiveMessage",
          #"{"QueueUrl":"$Q","VisibilityTimeout":0,"MessageAttributeNames":[\#(names)]}"#)
        return answer.objects("Messages").first?["MD5OfMessageAttributes"] as? String
      }
      #expect(await digest(#""General","Hello""#) == "fca026605781cb4126a1e9044df24232")
      #expect(await digest(#"".*""#) == "4c360f3fdafd970e05fae2f149d997f5")
      #expect(await digest(#""Help""#) == nil)
    }
  }

  @Test func exactlyTheLimitFits() async throws {
    try await ServiceFixture.runWithQueue(#"{"MaximumMessageSize":"1024"}"#) { fixture in
      let plain = String(repeating: "x", count: 1024)
      let answer = await fixture.call(
        "SendMessage", #"{"QueueUrl":"$Q","MessageBody":"\#(plain)"}"#)
      #expect(answer.status == 200)
      let attributed = await fixture.call(
        "SendMessage",
        #"{"QueueUrl":"$Q","MessageBody":"\#(plain.dropLast(8))","#
          + #""MessageAttributes":{"k":{"DataType":"String","StringValue":"x"}}}"#)
      #expect(attributed.status == 200)
    }
  }

  @Test func entriesOfABatchFailAlone() async throws {
    try await ServiceFixture.runWithQueue(#"{"MaximumMessageSize":"1024"}"#) { fixture in
      let long = String(repeating: "x", count: 1025)
      let answer = await fixture.call(
        "SendMessageBatch",
        #"""
        {"QueueUrl":"$Q","Entries":[{"Id":"ok","MessageBody":"test"},
         {"Id":"bad","MessageBody":"\u0000"},{"Id":"long","MessageBody":"\#(long)"},
         {"Id":"none"},{"Id":"dedup","MessageBody":"x","MessageDeduplicationId":"d"},
         {"Id":"attr","MessageBody":"y",
          "MessageAttributes":{"k":{"DataType":"String","StringValue":"x"}}}]}
        """#)
      #expect(answer.status == 200)
      let successful = answer.objects("Successful")
      #expect(successful.map { $0["Id"] as? String } == ["ok", "attr"])
      #expect(
        successful.map { $0["MD5OfMessageAttributes"] as? String }
          == [nil, "a45daa70926828a2f0a1db3418e6feb4"])
      let failed = answer.objects("Failed")
      #expect(failed.map { $0["Id"] as? String } == ["bad", "long", "none", "dedup"])
      #expect(
        failed.map { $0["Code"] as? String } == [
          "InvalidMessageContents", "InvalidParameterValue", "MissingParameter",
          "InvalidParameterValue",
        ])
      #expect(failed.allSatisfy { $0["SenderFault"] as? Bool == true })
      #expect(
        failed[1]["Message"] as? String
          == "One or more parameters cannot be validated. Reason: Message must be shorter than "
          + "1024 bytes.")
      #expect(
        (failed[3]["Message"] as? String)?.hasSuffix(
          "The request include parameter that is not valid for this queue type") == true)
      #expect(await fixture.receive(#""MaxNumberOfMessages":10"#).count == 2)
    }
  }

  @Test func wholeBatchHasALimitOfItsOwn() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let half = String(repeating: "x", count: 524_289)
      let answer = await fixture.call(
        "SendMessageBatch",
        #"{"QueueUrl":"$Q","Entries":[{"Id":"a","MessageBody":"\#(half)"},"#
          + #"{"Id":"b","MessageBody":"\#(half)"}]}"#)
      #expect(answer.error == "BatchRequestTooLong")
      #expect(
        answer.message
          == "Batch requests cannot be longer than 1048576 bytes. You have sent 1048578 bytes.")
    }
  }

  @Test func handlesDeleteAndChange() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      _ = await fixture.call("SendMessage", #"{"QueueUrl":"$Q","MessageBody":"a"}"#)
      let first = try #require(await fixture.receive().first)
      let handle = try #require(first["ReceiptHandle"] as? String)
      let change = await fixture.call(
        "ChangeMessageVisibility",
        #"{"QueueUrl":"$Q","ReceiptHandle":"\#(handle)","VisibilityTimeout":0}"#)
      #expect(change.status == 200)
      #expect(change.body.isEmpty)
      let second = try #require(await fixture.receive().first)
      let newer = try #require(second["ReceiptHandle"] as? String)
      #expect(newer != handle)
      #expect((second["Attributes"] as? [String: String])?["ApproximateReceiveCount"] == "2")
      _ = await fixture.call("CreateQueue", #"{"QueueName":"other"}"#)
      let foreign = await fixture.call(
        "DeleteMessage", #"{"QueueUrl":"other","ReceiptHandle":"\#(newer)"}"#)
      #expect(foreign.status == 404)
      #expect(foreign.message == "The input receipt handle is invalid.")
      for _ in 0..<2 {
        let deleted = await fixture.call(
          "DeleteMessage", #"{"QueueUrl":"$Q","ReceiptHandle":"\#(newer)"}"#)
        #expect(deleted.status == 200)
        #expect(deleted.body.isEmpty)
      }
      let gone = await fixture.call(
        "ChangeMessageVisibility",
        #"{"QueueUrl":"$Q","ReceiptHandle":"\#(newer)","VisibilityTimeout":1}"#)
      #expect(gone.error == "InvalidParameterValueException")
      #expect(
        gone.message?.hasSuffix(
          "Message does not exist or is not available for visibility timeout change.") == true)
    }
  }

  @Test func leaseCannotLastLongerThanTwelveHours() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      _ = await fixture.call("SendMessage", #"{"QueueUrl":"$Q","MessageBody":"a"}"#)
      let handle = try #require(await fixture.receive().first?["ReceiptHandle"] as? String)
      let start = ContinuousClock.now
      while ContinuousClock.now - start < .milliseconds(20) { await Task.yield() }
      let answer = await fixture.call(
        "ChangeMessageVisibility",
        #"{"QueueUrl":"$Q","ReceiptHandle":"\#(handle)","VisibilityTimeout":43200}"#)
      #expect(
        answer.message
          == "Value 43200 for parameter VisibilityTimeout is invalid. Reason: Total "
          + "VisibilityTimeout for the message is beyond the limit [43200 seconds].")
    }
  }

  @Test func batchesOfHandlesFailByEntry() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      _ = await fixture.call("SendMessage", #"{"QueueUrl":"$Q","MessageBody":"a"}"#)
      let handle = try #require(await fixture.receive().first?["ReceiptHandle"] as? String)
      let change = await fixture.call(
        "ChangeMessageVisibilityBatch",
        #"""
        {"QueueUrl":"$Q","Entries":[{"Id":"a","ReceiptHandle":"\#(handle)","VisibilityTimeout":9},
         {"Id":"b","ReceiptHandle":"\#(handle)"},
         {"Id":"c","ReceiptHandle":"\#(handle)","VisibilityTimeout":-1},
         {"Id":"d","ReceiptHandle":"x","VisibilityTimeout":1}]}
        """#)
      #expect(change.objects("Successful").map { $0["Id"] as? String } == ["a"])
      #expect(
        change.objects("Failed").map { $0["Message"] as? String } == [
          "The request must contain the parameter "
            + "ChangeMessageVisibilityBatchRequestEntry.2.VisibilityTimeout.",
          "Value -1 for parameter VisibilityTimeout is invalid. Reason: VisibilityTimeout must be "
            + "an integer between 0 and 43200.",
          "The input receipt handle \"x\" is not a valid receipt handle.",
        ])
      let delete = await fixture.call(
        "DeleteMessageBatch",
        #"""
        {"QueueUrl":"$Q","Entries":[{"Id":"a","ReceiptHandle":"\#(handle)"},
         {"Id":"b","ReceiptHandle":"y"},{"Id":"c"}]}
        """#)
      #expect(delete.objects("Successful").map { $0["Id"] as? String } == ["a"])
      #expect(
        delete.objects("Failed").map { $0["Code"] as? String }
          == ["ReceiptHandleIsInvalid", "MissingParameter"])
    }
  }

  @Test func namesOfTheNewerListWin() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      _ = await fixture.call("SendMessage", #"{"QueueUrl":"$Q","MessageBody":"a"}"#)
      let answer = await fixture.call(
        "ReceiveMessage",
        #"{"QueueUrl":"$Q","AttributeNames":["nonsense"],"#
          + #""MessageSystemAttributeNames":["SenderId"]}"#)
      let message = try #require(answer.objects("Messages").first)
      #expect(message["Attributes"] as? [String: String] == ["SenderId": "000000000000"])
    }
  }
}
