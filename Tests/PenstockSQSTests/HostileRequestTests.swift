// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSQS
import Testing

/// Whatever comes, an answer of the protocol goes back.
@Suite struct HostileRequests {
  private static let members = [
    "QueueUrl", "QueueName", "Attributes", "tags", "MaxResults", "NextToken", "QueueNamePrefix",
    "AttributeNames", "MessageBody", "DelaySeconds", "MessageAttributes",
    "MessageSystemAttributes", "MessageGroupId", "Entries", "MaxNumberOfMessages",
    "WaitTimeSeconds", "VisibilityTimeout", "MessageSystemAttributeNames",
    "MessageAttributeNames", "ReceiptHandle", "QueueOwnerAWSAccountId",
  ]
  private static let actions = [
    "CreateQueue", "GetQueueUrl", "ListQueues", "GetQueueAttributes", "SetQueueAttributes",
    "SendMessage", "SendMessageBatch", "ReceiveMessage", "DeleteMessage", "DeleteMessageBatch",
    "ChangeMessageVisibility", "ChangeMessageVisibilityBatch", "PurgeQueue",
  ]
  private static let values = [
    "null", "true", "0", "-1", "9223372036854775807", "1e400", "\"\"", "\"\\ud800\"", "[]",
    "[null]", "[[]]", "[{}]", "[1]", "{}", "{\"\":null}", "{\"a\":{}}", "{\"a\":[]}",
    "{\"a\":1}", "[\"\"]", "[{\"Id\":\"a\"}]", "[{\"Id\":null,\"MessageBody\":[]}]",
  ]

  private func isAnswer(_ answer: Answer) -> Bool {
    switch answer.status {
    case 200: answer.body.isEmpty || !answer.object.isEmpty || answer.text == "{}"
    case 400, 404: answer.error != nil && answer.message?.isEmpty == false
    default: false
    }
  }

  @Test func everyMemberTakesEveryKindOfValue() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      for action in Self.actions {
        for member in Self.members {
          for value in Self.values {
            // The last of equal members counts, so the good ones give way to the bad one.
            let body =
              #"{"QueueUrl":"$Q","MessageBody":"x","ReceiptHandle":"x","VisibilityTimeout":1,"#
              + #""WaitTimeSeconds":0,"\#(member)":\#(value)}"#
            let answer = await fixture.call(action, body)
            #expect(isAnswer(answer), "\(action) \(member) \(value): \(answer.text)")
          }
        }
      }
    }
  }

  @Test func everyMutilatedSendIsAnswered() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let body = Array(
        (#"{"QueueUrl":"q","MessageBody":"h\u00e9","DelaySeconds":1,"MessageAttributes":"#
          + #"{"k":{"DataType":"Binary","BinaryValue":"AAH/"}}}"#).utf8)
      let headers = TestHeaders(values: ["x-amz-target": "AmazonSQS.SendMessage"])
      for position in body.indices {
        for value: UInt8 in [0, 0x22, 0x2c, 0x31, 0x5b, 0x5c, 0x7b, 0x7d, 0x80, 0xed, 0xff] {
          var changed = body
          changed[position] = value
          let request = SQSRequest(
            method: "POST", target: "/", headers: headers, body: changed)
          let answer = await fixture.send(request)
          #expect(isAnswer(answer), "byte \(position) = \(value)")
        }
      }
    }
  }

  @Test func giantsAreNotSentBack() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let giant = String(repeating: "e\\u0301", count: 100_000)
      for (action, member) in [
        ("SendMessage", "MessageGroupId"), ("DeleteMessage", "ReceiptHandle"),
        ("ReceiveMessage", "ReceiveRequestAttemptId"),
      ] {
        let answer = await fixture.call(
          action, #"{"QueueUrl":"$Q","MessageBody":"x","\#(member)":"\#(giant)"}"#)
        #expect(answer.status >= 400)
        #expect(answer.body.count < 8192)
      }
    }
  }
}
